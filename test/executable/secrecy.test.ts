// P22: canary keys through every path; they are found nowhere but in the reply.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type ExecutableName, runExecutable } from '../fixtures/executable.ts';
import { type GoogleWorld, startGoogleWorld } from '../fixtures/google.ts';
import {
  canonicalJson,
  contextOf,
  counting,
  GOOGLE,
  googleEntry,
  hkdf,
  KEYFILES,
  keyfileEntry,
  packetV1,
  sealMembers,
  thumbprint,
  wrapWithGoogle,
} from '../fixtures/packets.ts';
import { makeKeyDirectory } from '../fixtures/provider.ts';
import { SEED, seeded } from '../fixtures/seed.ts';
import { base64, GCP, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

const keys = makeKeyDirectory();
const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-secrecy-'));
let google: GoogleWorld;
before(async () => {
  google = await startGoogleWorld();
});
after(async () => {
  keys.remove();
  rmSync(directory, { recursive: true, force: true });
  await google.close();
});

/** A key of 32 bytes that is nowhere else, the same for one seed. */
const canary = (name: string) => createHash('sha256').update(`canary ${name} ${SEED}`).digest();
const LAYER = canary('layer');
const NONCE = canary('nonce').subarray(0, 16);
const PRIVATE = canary('private key of another scheme');
const DATA = canary('data key');

const record = (symkey: Buffer) =>
  Buffer.from(
    JSON.stringify({
      symkey: symkey.toString('base64'),
      digest: `sha256:${'ab'.repeat(32)}`,
      cipheroptions: { nonce: NONCE.toString('base64') },
    }),
  );
const OPTSDATA = record(LAYER);

/** Every spelling in which a secret could leave. */
function spellings(secret: Buffer): readonly Buffer[] {
  const escaped = [...secret].map((byte) => `\\u00${byte.toString(16).padStart(2, '0')}`).join('');
  const shifted = [0, 1, 2].map((shift) =>
    Buffer.concat([Buffer.alloc(shift), secret])
      .toString('base64')
      .slice(4, 40),
  );
  return [
    secret,
    Buffer.from(secret.toString('hex')),
    Buffer.from(secret.toString('hex').toUpperCase()),
    Buffer.from(secret.toString('base64')),
    Buffer.from(secret.toString('base64url')),
    Buffer.from(escaped),
    Buffer.from([...secret].join(',')),
    ...shifted.map((text) => Buffer.from(text)),
    // Base64 of the record, in which the key is base64 already.
    ...[0, 1, 2].map((shift) =>
      Buffer.from(
        Buffer.concat([Buffer.alloc(shift), Buffer.from(secret.toString('base64'))])
          .toString('base64')
          .slice(4, 52),
      ),
    ),
  ];
}

function assertAbsent(where: string, haystack: Buffer, secrets: Readonly<Record<string, Buffer>>): void {
  for (const [name, secret] of Object.entries(secrets)) {
    for (const spelling of spellings(secret)) assert.ok(!haystack.includes(spelling), `${name} is in ${where}`);
  }
}

const sealed = () =>
  canonicalJson(
    sealMembers({
      recipients: [keyfileEntry(KEYFILES.first, { dataKey: DATA, optsdata: OPTSDATA }), googleEntryOf()],
      dataKey: DATA,
      optsdata: OPTSDATA,
    }),
  );
function googleEntryOf() {
  const wrapped = wrapWithGoogle(GOOGLE.first, DATA, contextOf({ dataKey: DATA, optsdata: OPTSDATA }), counting(1, 12));
  return { ...googleEntry(GOOGLE.first), wrapped_key: wrapped.toString('base64') };
}
const onlyGoogle = () =>
  canonicalJson(sealMembers({ recipients: [googleEntryOf()], dataKey: DATA, optsdata: OPTSDATA }));
const damage = (packet: string) => packet.replace(/"mac":"..../, '"mac":"AAAA');
const withPrivateKey = (request: string) =>
  request
    .replace(
      '"Parameters":{',
      `"Parameters":{"privkeys":["${base64(PRIVATE)}"],"privkeys-passwords":["${base64(PRIVATE.toString('hex'))}"],`,
    )
    .replace('"Parameters":null', `"Parameters":{"privkeys":["${base64(PRIVATE)}"]}`);

type Path = {
  readonly request: string;
  readonly words?: readonly string[];
  readonly name?: ExecutableName;
  readonly shell?: string;
};

const oracle = () =>
  unwrapRequest(packetV1(GCP, wrapWithGoogle(GOOGLE.first, Buffer.concat([LAYER, LAYER]), {}, counting(1, 12))));
const PATHS: Readonly<Record<string, () => Path>> = {
  'wrap with a key file': () => ({ request: wrapRequest([thumbprint(KEYFILES.first)], OPTSDATA) }),
  'wrap with Google, v2': () => ({ request: wrapRequest([GCP], OPTSDATA) }),
  'wrap with Google, v1': () => ({ request: wrapRequest([GCP], OPTSDATA), words: ['--packet=v1'] }),
  'wrap to a key that does not exist': () => ({ request: wrapRequest([`${GCP}x`], OPTSDATA) }),
  'wrap to what is no key': () => ({ request: wrapRequest([`x${GCP}`], OPTSDATA) }),
  'wrap of a record with a fault': () => ({
    request: wrapRequest([GCP], Buffer.from(OPTSDATA.toString().replace('digest', 'digost'))),
  }),
  'wrap in an array of numbers': () => ({
    request: wrapRequest([GCP], OPTSDATA).replace(JSON.stringify(base64(OPTSDATA)), JSON.stringify([...OPTSDATA])),
  }),
  'wrap in raw text': () => ({
    request: wrapRequest([GCP], OPTSDATA).replace(
      JSON.stringify(base64(OPTSDATA)),
      JSON.stringify(OPTSDATA.toString()),
    ),
  }),
  'half a wrap request': () => ({ request: wrapRequest([GCP], OPTSDATA).slice(0, -40) }),
  'a wrap request with a trailing byte': () => ({ request: `${wrapRequest([GCP], OPTSDATA)}x` }),
  'the key where its name belongs': () => ({
    request: wrapRequest([LAYER.toString('base64'), LAYER.toString('hex')], OPTSDATA)
      .replaceAll(base64(LAYER.toString('base64')), base64('gcpkms://x'))
      .replaceAll(base64(LAYER.toString('hex')), base64('gcpkms://y')),
  }),
  'unwrap with a key file': () => ({ request: unwrapRequest(sealed()) }),
  'unwrap with Google': () => ({ request: unwrapRequest(onlyGoogle()) }),
  'unwrap of a damaged packet': () => ({ request: unwrapRequest(damage(sealed())) }),
  'unwrap of another program’s secret': () => ({ request: oracle() }),
  'unwrap that is denied': () => ({ request: unwrapRequest(onlyGoogle(), [`${GCP}x`]) }),
  'unwrap with a reply that cannot be written': () => ({
    request: unwrapRequest(sealed()),
    shell: 'exec "$@" >/dev/full',
  }),
  'unwrap with an audit log that is full': () => ({
    request: unwrapRequest(sealed()),
    words: ['--audit-log=/dev/full'],
  }),
  'unwrap under the reference provider’s name': () => ({ request: unwrapRequest(onlyGoogle()), name: 'kms_oci_crypt' }),
};

describe('P22 canary keys', () => {
  for (const [name, path] of Object.entries(PATHS)) {
    test(seeded(`P22 are in nothing but the reply: ${name}`), async () => {
      const { request, words = [], name: called = 'ocicrypt-kms', shell } = path();
      const [audit, log] = [join(directory, 'audit'), join(directory, 'log')];
      for (const file of [audit, log]) rmSync(file, { force: true });
      const logs = words.some((word) => word.startsWith('--audit-log')) ? [] : [`--audit-log=${audit}`];
      const all = [
        ...(called === 'ocicrypt-kms' ? ['keyprovider'] : []),
        ...google.words,
        `--allow=${GCP}`,
        `--key=${keys.file('first')}`,
        `--debugLog=${log}`,
        ...logs,
        ...words,
      ];
      let process = Buffer.alloc(0);
      const result = await runExecutable(all, {
        name: called,
        input: withPrivateKey(request),
        environment: { OCICRYPT_KEYPROVIDER_CONFIG: '/etc/ocicrypt.json' },
        ...(shell === undefined ? {} : { shell }),
        started: ({ pid }) => {
          process = Buffer.concat(['cmdline', 'environ'].map((file) => readProcess(pid, file)));
        },
      });
      const { client_email: _, private_key: privateKey = '' } = JSON.parse(readFileSync(google.credentials, 'utf8'));
      const secrets = {
        'the layer key': LAYER,
        'the nonce': NONCE,
        'the data key': DATA,
        'a private key': PRIVATE,
        'the key file': KEYFILES.first,
        'the content key': hkdf(DATA, 'ocicrypt-kms/v2 content'),
      };
      const read = (file: string) => {
        try {
          return readFileSync(file);
        } catch {
          return Buffer.alloc(0);
        }
      };
      for (const [where, text] of Object.entries({
        stderr: Buffer.from(result.stderr),
        'the audit log': read(audit),
        'the debug log': read(log),
        'argv and environ': process,
      })) {
        assertAbsent(where, text, secrets);
        assert.ok(
          !text.includes(privateKey.slice(40, 90)) && !text.includes('ya29.') && !text.includes('Bearer'),
          where,
        );
      }
      const opened = request.includes('"op":"keyunwrap"') && result.status === 0;
      const { 'the layer key': ___, 'the nonce': ____, ...others } = secrets;
      assertAbsent('stdout', result.stdout, opened ? others : secrets);
      if (opened) assert.ok(result.stdout.includes(base64(OPTSDATA)), 'the canary is really the key');
    });
  }

  test(seeded('P22 after 1,000 operations no raw key is in memory, and at most 16 in base64'), async (context) => {
    if (process.platform !== 'linux') return context.skip('/proc is on Linux only');
    const files = {
      unwrap: join(directory, 'unwrap.json'),
      wrap: join(directory, 'wrap.json'),
      heap: join(directory, 'heap.heapsnapshot'),
    };
    const wrapLayer = canary('another layer');
    writeFileSync(files.unwrap, unwrapRequest(sealed()));
    writeFileSync(files.wrap, wrapRequest([`keyfile://${keys.file('first')}`], record(wrapLayer)));
    const script = fileURLToPath(new URL('../fixtures/secrecy-child.ts', import.meta.url));
    const child = spawn(
      process.execPath,
      ['--no-warnings', script, keys.file('first'), files.unwrap, files.wrap, '1000', files.heap],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    try {
      await new Promise<void>((resolve, reject) => {
        child.stdout.once('data', () => resolve());
        child.once('exit', (status) => reject(new Error(`the child ended with ${status}`)));
      });
      const heap = readFileSync(files.heap);
      const raw = countInMemory(child.pid ?? 0, {
        'the layer key': LAYER,
        'the wrapped layer key': wrapLayer,
        'the data key': DATA,
        'the content key': hkdf(DATA, 'ocicrypt-kms/v2 content'),
      });
      const inHeap = [LAYER, wrapLayer].reduce(
        (sum, secret) =>
          sum +
          occurrences(heap, Buffer.from(secret.toString('base64'))) +
          occurrences(heap, Buffer.from(base64(secret.toString('base64')).slice(4, 52))),
        0,
      );
      context.diagnostic(
        `after 1000 operations: ${JSON.stringify(Object.fromEntries(raw))} raw in the whole memory, ${inHeap} in base64 in the heap`,
      );
      const control = countInMemory(child.pid ?? 0, { 'the open key file': KEYFILES.first });
      assert.ok(
        [...control.values()].every((count) => count > 0),
        'the search finds what is there',
      );
      for (const [name, count] of raw) assert.equal(count, 0, `${name} is in memory ${count} times`);
      assert.ok(inHeap <= 16, `${inHeap} in base64`);
    } finally {
      child.kill('SIGKILL');
    }
  });
});

function readProcess(pid: number | undefined, file: string): Buffer {
  try {
    return readFileSync(`/proc/${pid}/${file}`);
  } catch {
    return Buffer.alloc(0);
  }
}

function occurrences(haystack: Buffer, needle: Buffer): number {
  let count = 0;
  for (let at = haystack.indexOf(needle); at !== -1; at = haystack.indexOf(needle, at + 1)) count++;
  return count;
}

/** How often each secret's bytes are in the writable memory of a process, freed memory included. */
function countInMemory(pid: number, secrets: Readonly<Record<string, Buffer>>): ReadonlyMap<string, number> {
  const counts = new Map(Object.keys(secrets).map((name) => [name, 0]));
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const match = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line);
      if (match === null) continue;
      const [start, end] = [Number.parseInt(match[1] ?? '', 16), Number.parseInt(match[2] ?? '', 16)];
      const STEP = 16 * 1024 * 1024;
      for (let at = start; at < end; at += STEP) {
        const chunk = Buffer.alloc(Math.min(STEP + 64, end - at));
        let length = 0;
        try {
          length = readSync(memory, chunk, 0, chunk.length, at);
        } catch {
          break;
        }
        for (const [name, secret] of Object.entries(secrets))
          counts.set(name, (counts.get(name) ?? 0) + occurrences(chunk.subarray(0, length), secret));
      }
    }
  } finally {
    closeSync(memory);
  }
  return counts;
}
