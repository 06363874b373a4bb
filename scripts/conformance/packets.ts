// The level of packets: the vectors that only an implementation of docs/packet.md and docs/keys.md can pass.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERROR_STATUS } from '../../src/base/errors.ts';
import { startGoogleWorld } from '../../test/fixtures/google.ts';
import { type KeyDirectory, makeKeyDirectory, wordsOf } from '../../test/fixtures/provider.ts';
import { FIRST_KEY, unwrapRequest, type Vector } from '../../test/fixtures/vectors/shape.ts';
import type { Door, Outcome } from '../../tools/conformance/doors.ts';
import type { Result } from '../../tools/conformance/report.ts';
import { PROJECT } from '../../tools/process.ts';
import { describe, fill, inParallel, readBytes } from './exchanges.ts';

const DIRECTORY = join(PROJECT, 'test/vectors/packets');

export type PacketOptions = {
  readonly door: Door;
  /** Where the key files are made; a temporary directory where it is left out. */
  readonly keys: string | undefined;
  /** Whether there is a command under the reference provider's name. */
  readonly hasReference: boolean;
};

/** What vectors are played with. */
type World = Omit<PacketOptions, 'keys'> & {
  readonly keys: KeyDirectory;
  /** Words that lead a command to the fake Google KMS. */
  readonly googleWords: readonly string[];
};

/** Plays the vectors whose names are chosen, a few at a time. */
export async function playVectors(
  options: PacketOptions,
  chosen: (name: string) => boolean,
): Promise<readonly Result[]> {
  const keys = makeKeyDirectory(options.keys);
  const google = options.door.kind === 'cmd' ? await startGoogleWorld() : undefined;
  const world: World = { ...options, keys, googleWords: google?.words ?? [] };
  try {
    const names = readdirSync(DIRECTORY).map((file) => file.replace(/\.json$/, ''));
    return await inParallel(names.filter(chosen), (name) => playVector(name, world));
  } finally {
    if (options.keys === undefined) keys.remove();
    await google?.close();
  }
}

async function playVector(name: string, world: World): Promise<Result> {
  const vector: Vector = JSON.parse(readFileSync(join(DIRECTORY, `${name}.json`), 'utf8'));
  const { comment, expect } = vector;
  const about = { level: 'packets', name: `packets/${name}`, comment, expected: expect } as const;
  const reason = whyNotPlayed(vector, world);
  if (reason !== undefined) return { ...about, result: 'not-played', detail: reason };
  const detail = await faultOf(vector, world);
  return { ...about, result: detail === undefined ? 'pass' : 'fail', detail: detail ?? '' };
}

function whyNotPlayed({ setup, request }: Vector, { door, hasReference }: World): string | undefined {
  if (setup.command !== undefined && !hasReference) return 'needs --reference-cmd';
  if (door.kind === 'cmd') return undefined;
  if (JSON.stringify(setup) !== '{"keys":["first"]}') return 'a server is set up once: with the key file "first"';
  return namesOtherKeys(fill(request)) ? 'a server does not take the keys that its caller names' : undefined;
}

/** Whether a well-formed request to wrap names a key that is not the server's. */
function namesOtherKeys(request: Buffer): boolean {
  try {
    const { keywrapparams } = JSON.parse(request.toString());
    const values: unknown[] = Object.values(keywrapparams?.ec?.Parameters ?? {}).flat();
    const texts = values.map((value) => Buffer.from(String(value), 'base64').toString());
    return texts.some((text) => /^[a-z0-9]+:|^projects\//.test(text) && text !== FIRST_KEY);
  } catch {
    return false;
  }
}

async function faultOf(vector: Vector, world: World): Promise<string | undefined> {
  const { expect, reply, packet } = vector;
  const outcome = await call(vector, fill(vector.request), world);
  if (expect !== 'ok') {
    if (outcome.kind !== 'failure') return describe(outcome);
    const { exit, grpc } = ERROR_STATUS[expect];
    if (outcome.status !== (world.door.kind === 'cmd' ? exit : grpc)) return describe(outcome);
    return outcome.text.includes('\n') ? 'more than one line on standard error' : undefined;
  }
  if (outcome.kind !== 'reply') return describe(outcome);
  if (reply !== undefined && outcome.reply.toString() !== reply) return 'another reply';
  return packet === undefined ? undefined : packetFault(outcome.reply, packet, vector, world);
}

function call({ setup }: Vector, request: Buffer, { door, keys, googleWords }: World): Promise<Outcome> {
  const words = door.kind === 'cmd' ? [...googleWords, ...wordsOf(setup, keys)] : [];
  const operation = request.includes('"keywrap"') ? 'wrap' : 'unwrap';
  return door.call(request, operation, { words, reference: setup.command !== undefined });
}

/** The packet is of the format and for the keys that the vector says, and opens again. */
async function packetFault(
  reply: Buffer,
  wanted: NonNullable<Vector['packet']>,
  vector: Vector,
  world: World,
): Promise<string | undefined> {
  const packet = readBytes(reply, 'keywrapresults', 'annotation');
  if (packet === undefined) return 'the reply holds no packet';
  const members = JSON.parse(packet.toString());
  const format = members.version === 'ocicrypt-kms/v2' ? 'v2' : 'v1';
  const keys: readonly string[] =
    format === 'v2' ? members.recipients.map(({ key }: { key: string }) => key) : [members.key_url];
  if (format !== wanted.format || keys.join() !== wanted.keys.join())
    return `a ${format} packet for ${keys.join(', ')}`;
  const { kmsURI: _, provider: __, ...setup } = vector.setup;
  const named = world.door.kind === 'cmd' ? keys : undefined;
  const opened = await call({ ...vector, setup }, Buffer.from(unwrapRequest(packet, named)), world);
  return opened.kind === 'reply' ? undefined : `its packet does not open: ${describe(opened)}`;
}
