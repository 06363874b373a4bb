// The server on what systemd handed over, until SIGTERM.
import { join } from 'node:path';
import { createKeyfile, openKeyfile } from '../../src/kms/keyfile.ts';
import { createProvider } from '../../src/provider/handle.ts';
import { Instruments } from '../../src/server/instruments.ts';
import { DEFAULT_SERVER_LIMITS } from '../../src/server/limits.ts';
import { inheritedTargets } from '../../src/server/listener.ts';
import { runUntilStopped } from '../../src/server/signals.ts';
import { startServer } from '../../src/server/start.ts';

const [, , directory = ''] = process.argv;
const path = join(directory, 'key');
createKeyfile(path);
const kek = openKeyfile(path);
const log = { info() {}, warn() {} };
const start = () =>
  startServer({
    listen: inheritedTargets(process.env),
    listener: { access: { mode: 0o600, group: undefined }, tls: undefined, insecurePlaintext: false },
    service: {
      provider: createProvider({
        openKek: async () => kek,
        rules: [{ kind: 'key', uri: { scheme: 'keyfile', path } }],
        callerKeysAllowed: false,
        names: { configured: undefined, fallback: 'grpc-keyprovider' },
      }),
      clients: [],
    },
    probes: [],
    limits: DEFAULT_SERVER_LIMITS,
    instruments: new Instruments(),
    status: undefined,
    log,
  });
await runUntilStopped(start, log);
process.exit(0);
