// A TPM in software, with Debian's resource manager and tpm2-pkcs11, set up as the document says: keys wrap and unwrap, and
// skopeo encrypts and decrypts with them. Needs root, for a mount namespace with Debian's libraries.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { executablePath } from '../fixtures/executable.ts';
import { writeImage } from '../fixtures/images.ts';
import { ensureSoftHsm } from '../fixtures/softhsm.ts';
import { findPort } from '../peers/started.ts';
import { fetchFromDebian } from '../real-clients/debian.ts';
import { runClient } from '../real-clients/process.ts';
import { CLIENT_PACKAGES, namespaceArgv } from '../real-clients/tools.ts';

const PACKAGES = [
  ...['swtpm', 'swtpm-libs', 'libtpms0', 'tpm2-abrmd', 'libtss2-tcti-tabrmd0', 'libtss2-tcti-swtpm0t64'],
  ...['libtpm2-pkcs11-1', 'libtss2-esys-3.0.2-0t64', 'libtss2-mu-4.0.1-0t64', 'libtss2-rc0t64', 'libtss2-sys1t64'],
  ...['libtss2-tctildr0t64', 'libyaml-0-2', 'libsqlite3-0', 'libssl3t64', 'libc6', 'libglib2.0-0t64', 'libffi8'],
  ...['libpcre2-8-0', 'libmount1', 'libblkid1', 'libatomic1', 'libjson-glib-1.0-0', 'libseccomp2', 'zlib1g'],
  ...['dbus-daemon', 'dbus-bin', 'dbus-session-bus-common', 'libdbus-1-3', 'libapparmor1', 'libaudit1', 'libcap-ng0'],
  ...['libexpat1', 'libselinux1', 'libsystemd0', 'libcap2', 'libgcc-s1', 'libstdc++6'],
  ...['opensc', 'opensc-pkcs11', 'libeac3', 'libreadline8t64', 'libtinfo6'],
];

/** Runs the rest of its words with a new TPM; what it starts ends with it. */
const WITH_TPM = `
cd "$1" && mkdir tpm store && shift
swtpm socket --tpm2 --tpmstate dir=$PWD/tpm --server type=tcp,port=$1 --ctrl type=tcp,port=$(($1 + 1)) \\
  --flags not-need-init,startup-clear --daemon --pid file=$PWD/pid
started=$(cat pid)
trap 'kill $started' EXIT
tpm2-abrmd --session --allow-root --tcti=swtpm:host=127.0.0.1,port=$1 & started="$started $!"
for try in $(seq 100); do
  dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \\
    string:com.intel.tss2.Tabrmd | grep -q true && break
  sleep 0.1
done
export TPM2_PKCS11_STORE=$PWD/store TPM2_PKCS11_TCTI=tabrmd:bus_type=session TPM2_PKCS11_LOG_LEVEL=0
shift
"$@"`;

test('a TPM holds RSA keys: the document sets it up, and skopeo encrypts and decrypts with it', async (t) => {
  const hsm = await ensureSoftHsm();
  if ('missing' in hsm) throw new Error(hsm.missing);
  const directory = await mkdtemp(join(tmpdir(), 'tpm-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const { setUp, module } = await readSection();
  const pin = join(directory, 'pin');
  await writeFile(pin, '123456\n', { mode: 0o600 });
  const ours = executablePath();
  const key = 'pkcs11:token=images;object=layer-keys';
  const options = [`--pkcs11-module=${module}`, `--pkcs11-binding=${hsm.binding}`, `--pkcs11-pin-file=${pin}`];
  const providers = { kmscrypt: { cmd: { path: ours, args: ['keyprovider', ...options, `--allow=${key}`] } } };
  await writeFile(join(directory, 'ocicrypt.json'), JSON.stringify({ 'key-providers': providers }));
  const image = await writeImage(join(directory, 'plain'));
  const copy = 'skopeo --insecure-policy copy --quiet';
  const steps = [
    'set -e',
    ...setUp,
    `pkcs11-tool --module ${module} --token-label images --login --pin 123456 --keygen --key-type AES:32 --label aes || true`,
    `${ours} doctor --json ${options.map((one) => `'${one}'`).join(' ')} '${key}' > report.json`,
    `! ${ours} doctor --json ${options.map((one) => `'${one}'`).join(' ')} '${key.replace('layer-keys', 'aes')}' > aes.json`,
    `export OCICRYPT_KEYPROVIDER_CONFIG=${directory}/ocicrypt.json`,
    `${copy} --encryption-key 'provider:kmscrypt:${key}' '${image.reference}' oci:encrypted:e`,
    `${copy} --decryption-key provider:kmscrypt oci:encrypted:e oci:decrypted:d`,
    'grep -q +encrypted encrypted/blobs/sha256/*',
    'cat decrypted/index.json',
  ];
  await writeFile(join(directory, 'steps'), `${steps.join('\n')}\n`);
  const roots = [await fetchFromDebian(PACKAGES), await fetchFromDebian(CLIENT_PACKAGES)];
  const words = ['--', 'bash', '-c', WITH_TPM, 'bash', directory, String(await findPort()), 'bash', 'steps'];
  const run = await runClient([...namespaceArgv(roots, 'dbus-run-session'), ...words]);
  assert.equal(run.exitCode, 0, run.stderr);
  const [probe] = JSON.parse(await readFile(join(directory, 'report.json'), 'utf8')).keys;
  assert.deepEqual([probe.ok, probe.wrapped.algorithm], [true, 'RSA-OAEP-SHA256']);
  const [aes] = JSON.parse(await readFile(join(directory, 'aes.json'), 'utf8')).keys;
  assert.ok(aes.error.code === 'configuration' || aes.error.code === 'not-found', JSON.stringify(aes.error));
  const layers = async (layout: string) => layerDigests(join(directory, layout));
  assert.deepEqual(await layers('decrypted'), await layers('plain'));
  assert.notDeepEqual(await layers('encrypted'), await layers('plain'));
});

/** The digests of the layers of a layout's one image. */
async function layerDigests(layout: string): Promise<readonly string[]> {
  const blob = async (digest: string) =>
    JSON.parse(await readFile(join(layout, 'blobs', digest.replace(':', '/')), 'utf8'));
  const index = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8'));
  const manifest = await blob(index.manifests[0].digest);
  return manifest.layers.map(({ digest }: { readonly digest: string }) => digest);
}

/** The commands of the document that make the token and its key, and the module that they name. */
async function readSection(): Promise<{ readonly setUp: readonly string[]; readonly module: string }> {
  const text = await readFile(fileURLToPath(new URL('../../docs/keys-pkcs11.md', import.meta.url)), 'utf8');
  const section = /^## A TPM$(.*?)^## /ms.exec(text)?.[1] ?? '';
  const lines = section.split('\n').filter((line) => line.startsWith('    '));
  const setUp = lines.slice(lines.findIndex((line) => line.includes('module=')));
  const module = /module=(\S+)/.exec(section)?.[1] ?? '';
  assert.ok(setUp.length >= 4 && module !== '', 'the document has the commands');
  return { setUp: setUp.map((line) => line.trim()), module };
}
