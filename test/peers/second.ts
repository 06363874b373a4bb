// Builds and runs the second key provider, which test/peers/second has in Go from docs/ alone.
import { spawn } from 'node:child_process';
import type { JsonWebKey } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { buildGoProgram } from './fetched.ts';

/** What it answers: `ok` and a reply, or the code of an error. */
export type SecondAnswer = { readonly code: string; readonly reply?: string };

/** What it is asked, as main.go has it. Bytes are base64. */
export type SecondCall =
  | { readonly services: readonly SecondService[] }
  | { readonly setup: object; readonly request: string }
  | { readonly uri: string }
  | { readonly setup: object; readonly forge: Forgery };

/** A key service's key that it plays. */
export type SecondService = {
  readonly key: string;
  readonly algorithm: string;
  readonly version?: string;
  readonly answer?: string;
  readonly secret?: string;
  readonly head?: string;
  readonly rsa?: JsonWebKey;
};

/**
 * What one who can open `packet` makes of it: the members of `members` in its place, under a right MAC; sealed anew
 * where there is a `record`.
 */
export type Forgery = { readonly packet: string; readonly members: string; readonly record?: string };

export type Second = {
  readonly ask: (call: SecondCall) => Promise<SecondAnswer>;
  readonly stop: () => Promise<void>;
};

/** Whether it can be built here. */
export function hasGo(): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => existsSync(join(directory, 'go')));
}

export async function startSecond(): Promise<Second> {
  const program = await buildGoProgram(new URL('second/', import.meta.url), []);
  const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
  const closed = once(child, 'close');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let last: Promise<unknown> = Promise.resolve();
  return {
    ask(call) {
      // Its answers come in the order of the calls.
      const answer = last.then(async (): Promise<SecondAnswer> => {
        child.stdin.write(`${JSON.stringify(call)}\n`);
        const line = await lines.next();
        if (line.done === true) throw new Error(`the second provider ended at ${JSON.stringify(call)}`);
        return JSON.parse(line.value);
      });
      last = answer.catch(() => {});
      return answer;
    },
    async stop() {
      child.stdin.end();
      await closed;
    },
  };
}
