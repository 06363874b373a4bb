// The server alone in a process; answers every byte on standard input with its resident memory.
import { join } from 'node:path';
import { createKeyfile, openKeyfile } from '../../src/kms/keyfile.ts';
import { createProvider } from '../../src/provider/handle.ts';
import { Instruments } from '../../src/server/instruments.ts';
import { DEFAULT_SERVER_LIMITS } from '../../src/server/limits.ts';
import { startServer } from '../../src/server/start.ts';

const [, , directory = ''] = process.argv;
const path = join(directory, 'key');
createKeyfile(path);
const kek = openKeyfile(path);
const provider = createProvider({
  openKek: async () => kek,
  rules: [{ kind: 'key', uri: { scheme: 'keyfile', path } }],
  callerKeysAllowed: false,
  names: { configured: undefined, fallback: 'grpc-keyprovider' },
});
await startServer({
  listen: [{ kind: 'unix', path: join(directory, 's') }],
  listener: { access: { mode: 0o600, group: undefined }, tls: undefined, insecurePlaintext: false },
  service: { provider, clients: [] },
  probes: [],
  limits: DEFAULT_SERVER_LIMITS,
  instruments: new Instruments(),
  status: undefined,
  log: { info() {}, warn() {} },
});
process.stdin.on('data', () => process.stdout.write(String(process.memoryUsage.rss())));
process.stdout.write('ready');
