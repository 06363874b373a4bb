// One more line in `imports`, nothing else changed; and what differs between two configurations.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parse, stringify } from 'smol-toml';
import { asOcicryptError } from '../../src/base/errors.ts';
import { addImport, foreignDifferences, importsOf, parseToml, removeImport } from '../../src/node/containerd-config.ts';
import { caught } from './root.ts';

const PATTERN = '/etc/containerd/conf.d/*.toml';

/** How operators and distributions write it. */
const TEXTS: readonly string[] = [
  '',
  'version = 2',
  'version = 2\n',
  '# only this\n',
  'disabled_plugins = ["cri"]\n',
  'version = 3\nroot = "/x"\n\n[debug]\n  level = "info"\n',
  'imports = []\nversion = 2\n',
  'version = 2\nimports = ["/a.toml"]\n',
  'version = 2\n"imports"=[ "/a.toml" , \'/b.toml\', ]\n',
  'version = 2\n  imports = [ # these\n    "/a.toml",\n    # and\n    "/b.toml"\n  ]\n[plugins]\n',
  '[plugins."x"]\nimports = ["of a plugin"]\n',
  '[[a]]\nb = 1\n',
  '\r\nversion = 2\r\n[a]\r\n',
];

describe('a pattern in imports', () => {
  for (const text of TEXTS) {
    test(`is added to ${JSON.stringify(text)}, and taken out again`, () => {
      const added = addImport(text, PATTERN, 'config.toml');
      const [before, after] = [parse(text), parse(added)];
      assert.deepEqual(importsOf(after).toSorted(), [...importsOf(before), PATTERN].toSorted());
      assert.deepEqual({ ...after, imports: 0 }, { ...before, imports: 0 });
      for (const line of text.split('\n').filter((one) => !one.includes('imports')))
        assert.ok(added.includes(line), 'comments stay');
      const removed = parse(removeImport(added, PATTERN));
      assert.deepEqual(importsOf(removed), importsOf(before));
    });
  }
  test('is refused where a program would have to guess', () => {
    for (const text of ['imports = "x"\n', 'a = """\nimports = [\n"""\nimports = ["/x"]\n']) {
      assert.equal(asOcicryptError(caught(() => addImport(text, PATTERN, 'config.toml'))).code, 'configuration', text);
    }
    assert.equal(asOcicryptError(caught(() => parseToml('[', 'x'))).code, 'configuration');
  });
  test('changes nothing else of any configuration', () => {
    const value = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.array(fc.string(), { maxLength: 2 }));
    const table = fc.dictionary(
      fc.string({ minLength: 1 }),
      fc.oneof(value, fc.dictionary(fc.string({ minLength: 1 }), value)),
    );
    fc.assert(
      fc.property(table, fc.array(fc.string()), (config, imports) => {
        const text = stringify({ ...config, imports });
        let added: string;
        try {
          added = addImport(text, PATTERN, 'config.toml');
        } catch (error) {
          assert.equal(asOcicryptError(error).code, 'configuration');
          return;
        }
        assert.deepEqual({ ...parse(added), imports: 0 }, { ...parse(text), imports: 0 });
      }),
    );
  });
});

describe('what differs between two dumps', () => {
  const config = {
    version: 2,
    imports: ['/a'],
    plugins: { cri: { sandbox_image: 'x', empty: {} } },
    stream_processors: { mine: { path: '/m' } },
  };
  test('is nothing where only ours is new', () => {
    const ours = {
      'io.containerd.ocicrypt.decoder.v1.tar': { path: '/x' },
      'io.containerd.ocicrypt.decoder.v1.tar.gzip': {},
    };
    const after = {
      ...config,
      imports: ['/a', '/b'],
      plugins: { cri: { sandbox_image: 'x' } },
      stream_processors: { ...config.stream_processors, ...ours },
    };
    assert.deepEqual(foreignDifferences(config, after), []);
  });
  test('is every other setting, by its path', () => {
    for (const [after, path] of [
      [{ ...config, version: 3 }, 'version'],
      [{ ...config, plugins: { cri: { sandbox_image: 'y' } } }, 'plugins.cri.sandbox_image'],
      [{ ...config, plugins: {} }, 'plugins.cri.sandbox_image'],
      [{ ...config, stream_processors: {} }, 'stream_processors.mine.path'],
      [{ ...config, root: '/x' }, 'root'],
    ] as const) {
      assert.deepEqual(foreignDifferences(config, after), [path]);
    }
  });
});
