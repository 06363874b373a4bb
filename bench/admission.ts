// How long creations of pods wait for the webhook when many come at once: each over a connection of its own, as from an API server.

import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { join } from 'node:path';
import { podOf, review, send, startImages } from '../test/admission/world.ts';
import { createCertificateAuthority } from '../test/fixtures/certificates.ts';
import { PROJECT } from '../tools/process.ts';
import type { BenchOptions } from './bench.ts';
import { print } from './measure.ts';
import { residentMiB } from './process.ts';

const CREATIONS = 200;

/** Runs the section. @param options `runs` is how often all creations are made */
export async function run({ runs = 5 }: BenchOptions): Promise<void> {
  const cleanups: (() => Promise<void> | void)[] = [];
  try {
    const { directory, fake, digest, open } = await startImages({ after: (clean) => void cleanups.push(clean) });
    const authority = await createCertificateAuthority(join(directory, 'webhook'));
    const { certificate, privateKey } = await authority.issue('server', { usage: 'server' });
    const policy = join(directory, 'policy.yaml');
    writeFileSync(policy, `{rules: [{name: all}], registries: ['${fake.host}'], nodes: [{runtime: containerd}]}`);
    const words = [`--policy=${policy}`, '--listen=tls://127.0.0.1:0', `--tls-cert=${certificate}`];
    const child = spawn(
      join(PROJECT, 'dist/ocicrypt-kms'),
      ['admission', ...words, `--tls-key=${privateKey}`, `--ca=${fake.authority}`],
      { stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: process.env.PATH, HOME: directory } },
    );
    cleanups.push(() => void child.kill('SIGKILL'));
    const address = await new Promise<string>((resolve, reject) => {
      child.once('exit', () => reject(new Error('the webhook ended')));
      child.stderr.on('data', (line: Buffer) => {
        const found = /tls:\/\/([\d.:]+)/.exec(line.toString())?.[1];
        if (found !== undefined) resolve(`https://${found}`);
      });
    });
    const ca = readFileSync(authority.certificate);
    const root = await open('app:1').readRoot();
    for (let index = 0; index < CREATIONS; index++) await open(`app:n${index}`).writeRoot(root);
    const image = (name: string) => `${fake.host}/${name}`;
    const cases = [
      ['one image by its tag, pinned', '/mutate', () => image('app:1')],
      ['one image by its digest', '/validate', () => image(`app@${digest}`)],
      ['200 tags', '/validate', (index: number) => image(`app:n${index}`)],
    ] as const;
    print(`${`${CREATIONS} creations at once, ${runs} times`.padEnd(44)}       p50        p99      whole`);
    for (const [title, path, imageOf] of cases) {
      const times: number[] = [];
      let whole = 0;
      for (let round = 0; round < runs; round++) {
        const started = performance.now();
        const asked = Array.from({ length: CREATIONS }, async (_, index) => {
          const agent = new Agent({ ca });
          const before = performance.now();
          const { body } = await send(
            agent,
            `${address}${path}?timeout=10s`,
            JSON.stringify(review(podOf(imageOf(index)))),
          );
          times.push(performance.now() - before);
          agent.destroy();
          if (!JSON.parse(body).response.allowed) throw new Error(`refused: ${body}`);
        });
        await Promise.all(asked);
        whole = Math.max(whole, performance.now() - started);
      }
      times.sort((a, b) => a - b);
      const at = (share: number) => `${(times[Math.floor(times.length * share)] ?? Number.NaN).toFixed(0)} ms`;
      print(
        `  ${title}`.padEnd(44) +
          [at(0.5), at(0.99), `${whole.toFixed(0)} ms`].map((text) => text.padStart(10)).join(' '),
      );
    }
    print(`  memory after this: ${residentMiB(child).toFixed(0)} MiB\n`);
  } finally {
    for (const clean of cleanups.reverse()) await clean();
  }
}
