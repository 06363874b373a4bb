// The server's promises as rows of docs/promises.md: which tests prove them on the executable, and in what counts.

const ANNOTATIONS = count('OCICRYPT_PROVE_ANNOTATIONS', 10_000);
const UNWRAPS = count('OCICRYPT_PROVE_UNWRAPS', 10_000);
const INPUTS = count('OCICRYPT_PROVE_INPUTS', 100_000);

/** What belongs to a promise of the server beside the tests that run on every program. */
const MORE_FILES: Readonly<Record<string, readonly string[]>> = {
  P7: ['test/executable/server/peers.test.ts'],
  P9: ['test/server/limits.test.ts'],
  P11: ['test/server/delay.test.ts', 'test/server/limits.test.ts'],
  P18: ['test/executable/server/sockets.test.ts', 'test/server/listener.test.ts'],
  P19: ['test/server/listener.test.ts'],
  P20: ['test/executable/server/peers.test.ts', 'test/server/client-names.test.ts'],
  P25: ['test/server/health.test.ts'],
  P26: ['test/server/health.test.ts'],
};

const ROWS = [
  ['P5', '300 hostile connections, that come again too: resident memory, good callers', 'hostile', {}],
  ['P6', 'each kind of flood is cut within 2,500 streams and seconds, the others go on', 'hostile', {}],
  ['P7', '1,000 unwraps at once; a queue that is full refuses at once; h2load', 'many', {}],
  [
    'P9',
    `1,000 identical unwraps: one call, 1,001 audit lines; ${number(ANNOTATIONS)} bad annotations: the key's rate`,
    'many',
    { OCICRYPT_TEST_RUNS: String(ANNOTATIONS) },
  ],
  [
    'P10',
    'Google KMS through the server: a fifth of the unwraps meets faults; every exchange does',
    'many',
    { OCICRYPT_TEST_RUNS: '2000' },
  ],
  ['P11', 'every call ends: deadlines of server and client, callers that leave', 'many', {}],
  ['P16', '1,000 calls in flight while the server drains: all answered; a second signal ends at once', 'ending', {}],
  ['P18', 'kill -9 and start again; stale, live and foreign sockets; those of systemd', 'ending', {}],
  ['P19', 'mode of socket and directory under three umasks', 'sockets', {}],
  ['P20', 'TLS 1.3, 1.2 on request, client certificates and names, reload; testssl.sh, nghttp', 'tls', {}],
  ['P23', 'signals open no debugger', 'ending', {}],
  [
    'P24',
    `${number(UNWRAPS)} unwraps while the disk of the audit log is full: none without its line; pipes closed and full`,
    'status',
    { OCICRYPT_TEST_RUNS: String(UNWRAPS) },
  ],
  ['P25', 'health tells the truth, and costs two calls of a key in 30 s', 'status', {}],
  [
    'P26',
    `metrics have as many lines after ${number(INPUTS)} different hostile inputs as after few`,
    'status',
    { OCICRYPT_TEST_RUNS: String(INPUTS) },
  ],
] as const;

/** Promise, what was done, test files, and their environment. */
export const SERVER_PROMISES = ROWS.map(([promise, what, file, environment]) => {
  const files = [`test/executable/server/${file}.test.ts`, ...(MORE_FILES[promise] ?? [])];
  return [promise, `the executable, and the sources on Node: ${what}`, files, environment] as const;
});

function number(value: number): string {
  return value.toLocaleString('en-US');
}

function count(variable: string, usual: number): number {
  return Number(process.env[variable] ?? usual);
}
