// Post-quantum recipients as a user meets them: a warning, a mark, a verdict, and how many of them a packet holds.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { generateHybridIdentity, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { writeImage } from '../fixtures/images.ts';
import { createImageWorkspace } from './image-workspace.ts';
import { packetsOf, readImage } from './workspace.ts';

const hybrid = async () => identityToRecipient(await generateHybridIdentity());

test('a classic recipient beside a post-quantum one is warned of, marked, and fails verify --post-quantum', async (t) => {
  const { path, oci, key, ours, refused } = await createImageWorkspace(t);
  const [recipient, classic] = [await hybrid(), await identityToRecipient(await generateX25519Identity())];
  const source = await writeImage(path('plain'), { layers: [{}] });
  const both = ['--recipient', recipient, '--recipient', key.uri];

  const good = await ours('encrypt', source.reference, oci('good'), ...both);
  assert.ok(!good.stderr.includes('warning'), good.stderr);
  await ours('verify', oci('good'), '--post-quantum');

  const mixed = await ours('encrypt', source.reference, oci('mixed'), ...both, '--recipient', classic);
  assert.match(mixed.stderr, new RegExp(`warning: .*${classic} \\(X25519\\)`));
  await refused('integrity', 'verify', oci('mixed'), '--post-quantum');
  await ours('verify', oci('mixed'));
  const { stdout } = await ours('inspect', oci('mixed'));
  const marked = stdout.split('\n').filter((line) => line.includes('not post-quantum'));
  assert.ok(marked.length === 1 && marked[0]?.includes(classic), stdout);

  const added = await ours('rewrap', oci('good'), '--add', classic, '--key', key.file);
  assert.match(added.stderr, /warning: /);
});

test('seven post-quantum recipients fit into a packet, eight are refused with the reason', async (t) => {
  const { path, oci, ours, refused } = await createImageWorkspace(t);
  const recipients = await Promise.all(Array.from({ length: 8 }, hybrid));
  const words = recipients.flatMap((one) => ['--recipient', one]);
  const source = await writeImage(path('plain'), { layers: [{}] });
  await ours('encrypt', source.reference, oci('seven'), ...words.slice(0, 14));
  await ours('encrypt', source.reference, oci('one'), ...words.slice(0, 2));
  await refused('bad-input', 'encrypt', source.reference, oci('eight'), ...words);
  const sizeOf = async (name: string) => {
    const [layer] = (await readImage(join(path(name)))).layers;
    assert.ok(layer !== undefined);
    return packetsOf(layer)[0]?.length ?? 0;
  };
  const each = ((await sizeOf('seven')) - (await sizeOf('one'))) / 6 / 1024;
  assert.equal(each.toFixed(1), '4.2');
});

test('labels are shown so that they can be read in one way only', async (t) => {
  const { path, oci, key, ours, refused } = await createImageWorkspace(t);
  const source = await writeImage(path('plain'), { layers: [{}] });
  const labels = ['--context', 'env=prod,team=a'];
  await ours('encrypt', source.reference, oci('one'), '--recipient', key.uri, ...labels);
  const { stdout } = await ours('inspect', oci('one'));
  assert.ok(stdout.includes('env="prod,team=a"'), stdout);
  const two = ['--context', 'env=prod', '--context', 'team=a'];
  await refused('not-allowed', 'decrypt', oci('one'), oci('never'), '--key', key.file, ...two);
  await ours('rewrap', oci('one'), '--recipient', key.uri, '--key', key.file);
  await ours('decrypt', oci('one'), oci('opened'), '--key', key.file, ...labels);
});
