// Measures what the project promises about speed and size: `npm run bench -- [SECTION]… [--runs=N] [--only=TEXT] [--peer=COMMAND] [--peer-server=COMMAND] [--crio=PROGRAM]`.
// A section is a file of this directory that exports `run`; docs/benchmarks.md says what each of them shows.

import { parseArgs } from 'node:util';
import { buildIfStale } from './build.ts';
import { print } from './measure.ts';

/** What a section is told. */
export type BenchOptions = {
  /** Counted runs of each contender; a section has its own number where none is given. */
  readonly runs: number | undefined;
  /** A part of the titles of the rows that are measured, for sections that have long ones (peer, pull). */
  readonly only: string | undefined;
  /** Another provider's command, put beside ours. */
  readonly peer: string | undefined;
  /** The command of its server, which takes the reference server's options. */
  readonly peerServer: string | undefined;
  /** A CRI-O that pulls in containerd's place (pull). */
  readonly crio: string | undefined;
};

type Section = { readonly run: (options: BenchOptions) => Promise<void> };

const SECTIONS: Readonly<Record<string, () => Promise<Section>>> = {
  'cold-start': () => import('./cold-start.ts'),
  backends: () => import('./backends.ts'),
  image: () => import('./image.ts'),
  pull: () => import('./pull.ts'),
  server: () => import('./server.ts'),
  peer: () => import('./peer.ts'),
  outage: () => import('./outage.ts'),
  admission: () => import('./admission.ts'),
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string' },
    only: { type: 'string' },
    peer: { type: 'string' },
    'peer-server': { type: 'string' },
    crio: { type: 'string' },
  },
});
const { runs: wanted, only, peer, 'peer-server': peerServer, crio } = values;
/** Those that need another provider. */
const COMPARED: readonly string[] = ['peer', 'outage'];
const all = Object.keys(SECTIONS).filter((name) => !COMPARED.includes(name));
const names = positionals.length > 0 ? positionals : peerServer === undefined ? all : ['peer'];
const unknown = names.find((name) => !(name in SECTIONS));
const runs = wanted === undefined ? undefined : Number(wanted);

if (unknown !== undefined || (runs !== undefined && !(Number.isSafeInteger(runs) && runs > 0))) {
  print(
    `usage: npm run bench -- [${Object.keys(SECTIONS).join('|')}]… [--runs=N] [--only=TEXT] [--peer=COMMAND] [--peer-server=COMMAND] [--crio=PROGRAM]`,
  );
  process.exitCode = 64;
} else {
  buildIfStale();
  for (const name of names) await (await SECTIONS[name]?.())?.run({ runs, only, peer, peerServer, crio });
}
