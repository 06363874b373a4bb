// The CRI-O that OCICRYPT_CRIO names: `ocicrypt-kms node install` sets it up, every kind of image is pulled and run in a pod, a failure says why, and `uninstall` undoes all of it.

import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { startGoogle } from '../end-to-end/google.ts';
import { executable, succeed } from '../end-to-end/workspace.ts';
import { runClient } from '../real-clients/process.ts';
import { type Outcome, pull, runImage } from './clients.ts';
import { IMAGE_KINDS, imageName } from './images.ts';
import { clearCrio, createLab } from './lab.ts';
import { appears, assertPulled, assertRefused, runOurs, succeedOurs, until } from './outcomes.ts';
import { CRIO_SIGNATURES } from './signatures.ts';
import { addSystemd, SYSTEMD_PROGRAMS, systemctlCalls } from './systemd.ts';

const KEYS = '/etc/crio/keys';
const SOCKET = '/run/ocicrypt-kms/ocicrypt-kms.sock';
const AUDIT = '/var/log/ocicrypt-kms/audit.log';

const program = process.env.OCICRYPT_CRIO;
if (program === undefined) throw new Error('no CRI-O is named: npm run test:nodes -- crio --crio=PROGRAM');

test('CRI-O', async (t) => {
  const lab = await createLab(t);
  const google = await startGoogle(t, lab);
  await lab.push('kms', google.key, google.options);
  const other = await lab.keygen('other.key');
  const node = await lab.startCrio(t, program, { programs: SYSTEMD_PROGRAMS });
  await addSystemd(node);
  t.diagnostic(`CRI-O ${node.version}`);
  const gzip = imageName(lab.registry, 'gzip');
  const plain = imageName(lab.registry, 'pause');
  const kms = `${lab.registry.host}/kms:1`;
  const pullIt = (image: string) => pull(node, 'CRI', image);
  const files = async () => {
    const { stdout } = await node.run([
      'sh',
      '-c',
      'find /etc/crio /etc/systemd/system -type f -exec sha256sum {} + | sort',
    ]);
    return new TextDecoder().decode(stdout);
  };
  const before = await files();

  const assertSaid = ({ exitCode, text }: Outcome, { text: signature }: { readonly text: string }) => {
    assert.ok(exitCode !== 0 && text.includes(signature), text);
    assert.doesNotMatch(text, /ocicrypt-kms: /);
  };
  const allow = (...words: readonly string[]) => succeedOurs(node, 'install', ...words);

  await t.test(
    'without the variable: a plain image is pulled, an encrypted one is not, and the check says why',
    async () => {
      assertPulled(await pullIt(plain));
      assertSaid(await pullIt(gzip), CRIO_SIGNATURES.noProvider);
      const { exitCode, text } = await runOurs(node, 'check');
      assert.ok(exitCode !== 0 && /FAIL.*was started without OCICRYPT_KEYPROVIDER_CONFIG/.test(text), text);
    },
  );
  await t.test('installed, CRI-O is restarted, and the check finds nothing', async () => {
    const text = await succeedOurs(node, 'install', `--key=${lab.key.file}`);
    assert.match(text, /found {2}CRI-O\n/);
    assert.match(text, /restarting crio\.service/);
    assert.doesNotMatch(text, /FAIL|warn/);
    assert.deepEqual(
      (await systemctlCalls(node)).filter((call) => call.startsWith('restart')),
      ['restart crio.service'],
    );
    assert.doesNotMatch(await succeedOurs(node, 'check'), /FAIL|warn/);
    assert.match(await succeedOurs(node, 'install'), /nothing to write/);
  });
  for (const kind of IMAGE_KINDS) {
    await t.test(`${kind}: pulled, and run in a pod`, async () => {
      const image = imageName(lab.registry, kind);
      assertPulled(await pullIt(image));
      const { text } = await runImage(node, image, `run-${IMAGE_KINDS.indexOf(kind)}`);
      assert.match(text, /^hello$/m);
    });
  }
  await t.test('two images pulled and run at once', async () => {
    await clearCrio(node);
    const names = (['gzip', 'uncompressed'] as const).map((kind) => imageName(lab.registry, kind));
    for (const outcome of await Promise.all(names.map(pullIt))) assertPulled(outcome);
    const said = await Promise.all(names.map((name, index) => runImage(node, name, `pod-${index}`)));
    for (const { text } of said) assert.match(text, /^hello$/m);
  });
  await t.test('a purged image is gone with its layers, and a withdrawn key counts, without a restart', async () => {
    await clearCrio(node);
    assertPulled(await pullIt(gzip));
    await succeedOurs(node, 'purge', gzip);
    const calls = await systemctlCalls(node);
    for (const word of ['--allow=hashivault://images', `--key=${other.file}`]) {
      await allow(word);
      assertRefused(await pullIt(gzip), 'not-allowed', lab.key.thumbprint);
    }
    await allow(`--key=${lab.key.file}`);
    assertPulled(await pullIt(gzip));
    assert.deepEqual(await systemctlCalls(node), calls);
  });
  await t.test('an image that is named by its digest is not decrypted', async () => {
    await clearCrio(node);
    const digest = await manifestDigest(lab.registry.reference('gzip:1'), lab.registry.authority);
    assertSaid(await pullIt(`${lab.registry.host}/gzip@${digest}`), CRIO_SIGNATURES.digest);
  });
  await t.test('a stray file in the directory of keys fails every pull, and the check names it', async () => {
    await node.write(`${KEYS}/README`, 'keys\n');
    for (const image of [gzip, plain]) assertSaid(await pullIt(image), CRIO_SIGNATURES.strayFile);
    const { exitCode, text } = await runOurs(node, 'check');
    assert.ok(exitCode !== 0 && /FAIL.*README is no private key/.test(text), text);
    await node.run(['rm', `${KEYS}/README`]);
    assertPulled(await pullIt(gzip));
  });
  await t.test('the key service refuses, is silent, is slow', async (t) => {
    await allow(...google.options, `--allow=${google.key}`, '--timeout=4s');
    google.kms.deny(google.email, 'decrypt');
    t.after(() => google.kms.permit(google.email));
    assertRefused(await pullIt(kms), 'refused', google.key);
    google.kms.permit(google.email);
    google.kms.server.setFault(() => ({ kind: 'silent' }));
    t.after(() => google.kms.server.setFault(undefined));
    assertRefused(await pullIt(kms), 'deadline-exceeded', google.key);
    google.kms.server.setFault(() => ({ kind: 'latency', milliseconds: 500 }));
    assertPulled(await pullIt(kms));
    google.kms.server.setFault(undefined);
  });
  await t.test('a command that is killed fails its pull, and the next one succeeds', async () => {
    await clearCrio(node);
    let release = () => {};
    google.kms.server.faults.push({ kind: 'held', until: new Promise((resolve) => (release = resolve)) });
    const pulling = pullIt(kms);
    await until(() => google.kms.server.faults.length === 0);
    await node.run(['sh', '-c', 'kill -9 $(pidof ocicrypt-kms)']);
    release();
    const { exitCode, text } = await pulling;
    assert.ok(exitCode !== 0 && text.includes('signal: killed'), text);
    assertPulled(await pullIt(kms));
  });
  await t.test('an image with new keys is pulled with those', async () => {
    await lab.push('rewrapped', lab.key.uri, []);
    const image = `${lab.registry.host}/rewrapped:1`;
    await allow(`--key=${other.file}`);
    assertRefused(await pullIt(image), 'not-allowed', lab.key.thumbprint);
    const words = [`--key=${lab.key.file}`, '--recipient', other.uri, `--ca=${lab.registry.authority}`];
    await succeed(runClient([executable(), 'rewrap', `docker://${image}`, ...words]));
    assertPulled(await pullIt(image));
  });
  await t.test('with a service, CRI-O asks it itself, and says why it refuses', async () => {
    await clearCrio(node);
    const text = await allow(`--key=${other.file}`, '--service');
    assert.doesNotMatch(text, /FAIL|warn/);
    assert.doesNotMatch(readFileSync(node.path('/etc/ocicrypt-kms/ocicrypt.json'), 'utf8'), /"cmd"/);
    const { exitCode, text: refused } = await pullIt(gzip);
    assert.ok(exitCode !== 0 && refused.includes('desc = not-allowed: '), refused);
    assert.ok(refused.includes(lab.key.thumbprint), refused);
  });
  await t.test('a service that is killed in the middle of a pull, and started again', async () => {
    await allow(`--key=${lab.key.file}`);
    const many = imageName(lab.registry, '30 layers');
    const size = () => statSync(node.path(AUDIT), { throwIfNoEntry: false })?.size ?? 0;
    const answered = size();
    const pulling = pullIt(many);
    await until(() => size() > answered);
    await node.run(['sh', '-c', `kill -9 "$(cat /run/service.pid)"; rm -f ${SOCKET}`]);
    for (const outcome of [await pulling, await pullIt(gzip)]) assertSaid(outcome, CRIO_SIGNATURES.noService);
    await node.run(['systemctl', 'enable', '--now', 'ocicrypt-kms.socket']);
    await appears(node, SOCKET);
    assertPulled(await pullIt(many));
    assert.match(readFileSync(node.path(AUDIT), 'utf8'), /"outcome":"ok"/);
  });
  await t.test('uninstalled, every file is as it was, and CRI-O asks no provider', async () => {
    await clearCrio(node);
    await succeedOurs(node, 'uninstall');
    assert.equal(await files(), before);
    assertSaid(await pullIt(gzip), CRIO_SIGNATURES.noProvider);
  });
});

async function manifestDigest(reference: string, authority: string): Promise<string> {
  const { stdout } = await succeed(runClient([executable(), 'inspect', reference, `--ca=${authority}`, '--json']));
  const { digest }: { readonly digest: string } = JSON.parse(new TextDecoder().decode(stdout));
  return digest;
}
