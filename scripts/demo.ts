// The main job on a real image, shown step by step: a key, an image encrypted by skopeo, the wrong key, the right key.

import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { styleText } from 'node:util';
import { blobPath, type Descriptor, type Image, readImages, writeImage } from '../test/fixtures/images.ts';
import { clientEnvironment } from '../test/real-clients/process.ts';
import { type Argv, ensureTools } from '../test/real-clients/tools.ts';
import { PROJECT } from '../tools/process.ts';

const EXECUTABLE = join(PROJECT, 'dist/ocicrypt-kms');
const ANNOTATION = 'org.opencontainers.image.enc.keys.provider.kmscrypt';

/** What ends the demo early: one line for the reader. */
class Failure extends Error {}

const started = performance.now();
let steps = 0;
const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-demo-'));
try {
  await runDemo();
} catch (error) {
  say('', styleText('red', `failed: ${error instanceof Failure ? error.message : String(error)}`));
  process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}

async function runDemo(): Promise<void> {
  say('ocicrypt-kms encrypts container images so that only the holder of a key can open them.');
  buildExecutable();
  const skopeo = await findSkopeo();
  const version = /\d+\.\d+\.\d+/.exec(run([...skopeo, '--version']).stdout)?.[0] ?? '';

  step('An image with three layers');
  await writeImage(join(directory, 'plain'), { layers: [{ size: 2_000_000 }, { size: 500_000 }, {}] });
  const plain = await readImage('plain');
  for (const layer of plain.layers) say(`   ${showLayer(layer)}`);

  step('A key of your own, and the file that tells skopeo of the provider');
  command('ocicrypt-kms keygen app.key');
  const made = expectSuccess(run([EXECUTABLE, 'keygen', 'app.key']));
  const key = made.stdout.trim();
  say(`   ${show(key)}`, `   ${made.stderr.trim()}`);
  command('ocicrypt-kms config ocicrypt > ocicrypt.json');
  const config = expectSuccess(run([EXECUTABLE, 'config', 'ocicrypt'])).stdout;
  writeFileSync(join(directory, 'ocicrypt.json'), config);
  say(
    ...config
      .trimEnd()
      .split('\n')
      .map((line) => `   ${show(line)}`),
  );

  step(`skopeo ${version} encrypts the image: it starts the provider once for each layer`);
  command(`skopeo copy --encryption-key provider:kmscrypt:${show(key)} oci:plain oci:encrypted`);
  expectSuccess(copy(skopeo, '--encryption-key', key, 'plain', 'encrypted'));
  const encrypted = await readImage('encrypted');
  for (const [index, layer] of encrypted.layers.entries()) {
    const before = plain.layers[index];
    if (before !== undefined) say(`   before  ${showLayer(before)}`);
    say(`   after   ${showLayer(layer)}`, `           who can open it: ${showRecipients(layer)}`);
    if (!layer.mediaType.endsWith('+encrypted') || layer.digest === before?.digest) {
      throw new Failure(`layer ${layer.digest} is not encrypted`);
    }
  }

  step('Somebody with another key is refused; this is what they see');
  const other = expectSuccess(run([EXECUTABLE, 'keygen', 'other.key'])).stdout.trim();
  command(`skopeo copy --decryption-key provider:kmscrypt:${show(other)} oci:encrypted oci:stolen`);
  const refused = copy(skopeo, '--decryption-key', other, 'encrypted', 'stolen');
  if (refused.status === 0) throw new Failure('another key opened the image');
  const line = /ocicrypt-kms: not-allowed: .*?(?=\\n|$)/m.exec(refused.stderr)?.[0];
  if (line === undefined) throw new Failure(`skopeo failed in another way: ${refused.stderr.trim()}`);
  say(styleText('yellow', `   ${show(line)}`));

  step('The right key opens it');
  command(`skopeo copy --decryption-key provider:kmscrypt:${show(key)} oci:encrypted oci:opened`);
  expectSuccess(copy(skopeo, '--decryption-key', key, 'encrypted', 'opened'));
  const opened = await readImage('opened');
  for (const [index, layer] of opened.layers.entries()) {
    const content = digestOf(readFileSync(blobPath(join(directory, 'opened'), layer.digest)));
    if (content !== plain.layers[index]?.digest) throw new Failure(`layer ${index + 1} came back changed`);
    say(`   ${showLayer(layer)}  as before`);
  }
  if (opened.layers.length !== plain.layers.length || opened.config.digest !== plain.config.digest) {
    throw new Failure('the image came back changed');
  }

  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  say(
    '',
    styleText(
      'green',
      `ok: 3 layers encrypted by skopeo ${version} and opened again, every digest equal (${seconds} s)`,
    ),
  );
  say('next: README.md, "Five minutes", with your own key or Google Cloud KMS; docs/walkthrough.md for all of it');
}

/** Builds where there is no executable yet, or one that is older than its source. */
function buildExecutable(): void {
  const changed = (file: string) => statSync(file).mtimeMs;
  const sources = globSync('src/**/*.ts', { cwd: PROJECT }).map((file) => join(PROJECT, file));
  if (existsSync(EXECUTABLE) && sources.every((file) => changed(file) < changed(EXECUTABLE))) return;
  say('building dist/ocicrypt-kms …');
  expectSuccess(run([process.execPath, join(PROJECT, 'scripts/build.ts')], PROJECT));
}

async function findSkopeo(): Promise<Argv> {
  const slow = setTimeout(() => say('fetching skopeo from Debian into .cache (25 MB, no root) …'), 500);
  const { skopeo } = await ensureTools();
  clearTimeout(slow);
  if ('missing' in skopeo) throw new Failure(skopeo.missing);
  return skopeo.argv;
}

function copy(skopeo: Argv, option: string, key: string, from: string, to: string): SpawnSyncReturns<string> {
  return run([
    ...[...skopeo, '--insecure-policy', 'copy', option, `provider:kmscrypt:${key}`],
    ...[`oci:${directory}/${from}:latest`, `oci:${directory}/${to}:latest`],
  ]);
}

function run([program = '', ...words]: readonly string[], cwd = directory): SpawnSyncReturns<string> {
  const env = clientEnvironment({ OCICRYPT_KEYPROVIDER_CONFIG: join(directory, 'ocicrypt.json') });
  return spawnSync(program, words, { cwd, env, encoding: 'utf8' });
}

function expectSuccess(result: SpawnSyncReturns<string>): SpawnSyncReturns<string> {
  if (result.status === 0) return result;
  throw new Failure(result.error?.message ?? (`${result.stderr}${result.stdout}`.trim() || `exit ${result.status}`));
}

async function readImage(name: string): Promise<Image> {
  const [image] = await readImages(join(directory, name));
  if (image === undefined) throw new Failure(`${name} holds no image`);
  return image;
}

function showLayer({ mediaType, digest, size }: Descriptor): string {
  const type = mediaType.replace('application/vnd.oci.image.layer.v1.', '').padEnd(18);
  return `${type}  ${digest.slice(0, 19)}…  ${String(size).padStart(9)} bytes`;
}

/** The keys of a packet (docs/packet.md); they are public, what they wrap is not. */
function showRecipients({ annotations }: Descriptor): string {
  const packet = Buffer.from(annotations?.[ANNOTATION] ?? '', 'base64').toString();
  return [...packet.matchAll(/keyfile:sha256:[0-9a-f]{64}/g)].map(([key]) => `${key.slice(0, 31)}…`).join(', ');
}

/** Without the name of the temporary directory, which tells a reader nothing. */
function show(text: string): string {
  return text.replaceAll(directory, '/demo').replaceAll(PROJECT, '…');
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function step(title: string): void {
  say('', styleText('bold', `${++steps}. ${title}`));
}

function command(words: string): void {
  say(styleText('cyan', `   $ ${words}`));
}

function say(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}
