// The main job on a real image, shown step by step: a key, the wrong key, the right key, the provider as clients start it, and
// skopeo where it can be had. With the word `alone` skopeo is not looked for.

import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { styleText } from 'node:util';
import { blobPath, type Descriptor, type Image, readImages, writeImage } from '../test/fixtures/images.ts';
import { clientEnvironment } from '../test/real-clients/process.ts';
import { type Argv, ensureTools } from '../test/real-clients/tools.ts';
import { PROJECT, runTool } from '../tools/process.ts';
import { unwrapRequest } from '../tools/sample.ts';

const EXECUTABLE = join(PROJECT, 'dist/ocicrypt-kms');
const ANNOTATION = 'org.opencontainers.image.enc.keys.provider.kmscrypt';

/** What ends the demo early: one line for the reader. */
class Failure extends Error {}

const words = process.argv.slice(2);
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

  step('An image with three layers');
  await writeImage(join(directory, 'plain'), { layers: [{ size: 2_000_000 }, { size: 500_000 }, {}] });
  const plain = await readImage('plain');
  for (const layer of plain.layers) say(`   ${showLayer(layer)}`);

  step('A key of your own');
  const made = ours('keygen', 'app.key');
  const key = made.stdout.trim();
  say(`   ${show(key)}`, `   ${made.stderr.trim()}`);

  step('The image is encrypted to it');
  ours('encrypt', 'oci:plain:latest', 'oci:encrypted:latest', `--recipient=${key}`);
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
  expectSuccess(run([EXECUTABLE, 'keygen', 'other.key']));
  command('ocicrypt-kms decrypt oci:encrypted oci:stolen --key=other.key');
  const refused = run([EXECUTABLE, 'decrypt', 'oci:encrypted', 'oci:stolen', '--key=other.key']);
  if (refused.status === 0) throw new Failure('another key opened the image');
  if (!refused.stderr.includes('not-allowed:')) throw new Failure(`it failed in another way: ${refused.stderr.trim()}`);
  say(styleText('yellow', `   ${show(refused.stderr.trim())}`));

  step('The right key opens it');
  ours('decrypt', 'oci:encrypted', 'oci:opened', '--key=app.key');
  await expectSame(plain, 'opened');

  step('A client starts the provider once for each layer, and is handed the layer key');
  command('ocicrypt-kms keyprovider < request');
  for (const layer of encrypted.layers) askProvider(key, layer);

  const skopeo = words.includes('alone') ? 'is left out' : await useSkopeo(key, plain);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  say(
    '',
    styleText('green', `ok: 3 layers encrypted and opened again, every digest equal; skopeo ${skopeo} (${seconds} s)`),
  );
  say('next: README.md, "Five minutes", with your own key or Google Cloud KMS; docs/walkthrough.md for all of it');
}

/** skopeo opens what we encrypted, and we open what it encrypts. @returns what there is to say of it at the end */
async function useSkopeo(key: string, plain: Image): Promise<string> {
  const slow = setTimeout(() => say('', 'fetching skopeo from Debian into .cache (25 MB, no root) …'), 500);
  const { skopeo } = await ensureTools();
  clearTimeout(slow);
  if ('missing' in skopeo) return `was not there (${skopeo.missing})`;
  const version = /\d+\.\d+\.\d+/.exec(run([...skopeo.argv, '--version']).stdout)?.[0] ?? '';

  step(`skopeo ${version} does the same, and starts the provider that this file names`);
  const config = ours('config', 'ocicrypt', '>', 'ocicrypt.json').stdout;
  writeFileSync(join(directory, 'ocicrypt.json'), config);
  say(
    ...config
      .trimEnd()
      .split('\n')
      .map((line) => `   ${show(line)}`),
  );
  copy(skopeo.argv, '--decryption-key', key, 'encrypted', 'opened-by-skopeo');
  await expectSame(plain, 'opened-by-skopeo');
  copy(skopeo.argv, '--encryption-key', key, 'plain', 'encrypted-by-skopeo');
  ours('verify', 'oci:encrypted-by-skopeo:latest', `--only=${key}`, '--content', '--key=app.key');
  return `${version} opened it too, and encrypted what we opened`;
}

/** What is in `name` must be the plain image again. */
async function expectSame(plain: Image, name: string): Promise<void> {
  const opened = await readImage(name);
  for (const [index, layer] of opened.layers.entries()) {
    const content = digestOf(readFileSync(blobPath(join(directory, name), layer.digest)));
    if (content !== plain.layers[index]?.digest) throw new Failure(`layer ${index + 1} came back changed`);
    say(`   ${showLayer(layer)}  as before`);
  }
  if (opened.layers.length !== plain.layers.length || opened.config.digest !== plain.config.digest) {
    throw new Failure('the image came back changed');
  }
}

/** One exchange as skopeo, podman and containerd have it, with the packet that stands in the manifest. */
function askProvider(key: string, { digest, annotations }: Descriptor): void {
  const request = unwrapRequest(
    key,
    Buffer.from(JSON.stringify({ keywrapresults: { annotation: annotations?.[ANNOTATION] } })),
  );
  const before = performance.now();
  const { stdout } = expectSuccess(run([EXECUTABLE, 'keyprovider'], request));
  const { optsdata } = JSON.parse(stdout).keyunwrapresults;
  const { symkey } = JSON.parse(Buffer.from(optsdata, 'base64').toString());
  const milliseconds = (performance.now() - before).toFixed(0);
  const length = Buffer.from(symkey, 'base64').length;
  if (length !== 32) throw new Failure(`the provider answered with ${length} bytes`);
  say(`   ${digest.slice(0, 19)}…  a key of ${length} bytes, in ${milliseconds} ms`);
}

/** Builds where there is no executable yet, or one that is older than its source. */
function buildExecutable(): void {
  const changed = (file: string) => statSync(file).mtimeMs;
  const sources = globSync('src/**/*.ts', { cwd: PROJECT }).map((file) => join(PROJECT, file));
  if (existsSync(EXECUTABLE) && sources.every((file) => changed(file) < changed(EXECUTABLE))) return;
  say('building dist/ocicrypt-kms …');
  runTool('node', ['scripts/build.ts']);
}

function copy(skopeo: Argv, option: string, key: string, from: string, to: string): void {
  const named = `${option} provider:kmscrypt:${key}`.split(' ');
  command(`skopeo copy ${named.map(show).join(' ')} oci:${from} oci:${to}`);
  const places = [`oci:${directory}/${from}:latest`, `oci:${directory}/${to}:latest`];
  expectSuccess(run([...skopeo, '--insecure-policy', 'copy', ...named, ...places]));
}

/** Shows a command of ours and runs it; what a shell would do with the output is shown, too. */
function ours(...words: readonly string[]): SpawnSyncReturns<string> {
  command(['ocicrypt-kms', ...words].map(show).join(' '));
  const end = words.indexOf('>');
  return expectSuccess(run([EXECUTABLE, ...words.slice(0, end === -1 ? undefined : end)]));
}

function run(
  [program = '', ...words]: readonly string[],
  input: Uint8Array = new Uint8Array(),
): SpawnSyncReturns<string> {
  const env = clientEnvironment({ OCICRYPT_KEYPROVIDER_CONFIG: join(directory, 'ocicrypt.json') });
  return spawnSync(program, words, { cwd: directory, env, input, encoding: 'utf8' });
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
