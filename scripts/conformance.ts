// Plays clients' requests and the test vectors against any OCICrypt key provider: docs/conformance.md.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { commandDoor, grpcDoor } from '../tools/conformance/doors.ts';
import { formatReport, isConformant, makeReport, parseExpected } from '../tools/conformance/report.ts';
import { playExchanges } from './conformance/exchanges.ts';

const USAGE = `usage: npm run conformance -- --cmd 'COMMAND ARGUMENT…' | --grpc TARGET  [option]…

  --recipient VALUE        what provider:NAME:VALUE names, for the level of the protocol; twice for two recipients
  --name NAME              the provider's name in requests (default: kmscrypt with --cmd, grpc-keyprovider with --grpc)
  --packets                also the level of packets, for an implementation of docs/packet.md
  --reference-cmd COMMAND  the command under the name kms_oci_crypt, for the vectors that are about it
  --keys DIR               key files of the vectors are made in DIR and left there; a server wants --key=DIR/first.key
  --only PATTERN           only what a regular expression finds in "protocol/NAME" or "packets/NAME"
  --expected FILE          names of failures that are expected, one a line
  --timeout SECONDS        until a call counts as hanging (default: 30)
  --json                   the report as JSON
`;

const { values } = parseArgs({
  options: {
    cmd: { type: 'string' },
    grpc: { type: 'string' },
    recipient: { type: 'string', multiple: true, default: [] },
    name: { type: 'string' },
    packets: { type: 'boolean', default: false },
    'reference-cmd': { type: 'string' },
    keys: { type: 'string' },
    only: { type: 'string', default: '' },
    expected: { type: 'string' },
    timeout: { type: 'string', default: '30' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const { cmd, grpc, recipient: recipients } = values;
const patience = Number(values.timeout) * 1000;
const only = new RegExp(values.only);

if (values.help) process.stdout.write(USAGE);
else if (cmd === undefined && grpc === undefined && values.keys !== undefined) {
  (await import('../test/fixtures/provider.ts')).makeKeyDirectory(values.keys);
} else if (
  (cmd === undefined) === (grpc === undefined) ||
  (recipients.length === 0 && !values.packets) ||
  !(patience > 0)
) {
  process.stderr.write(USAGE);
  process.exitCode = 64;
} else {
  const door = cmd === undefined ? grpcDoor(grpc ?? '', patience) : commandDoor(cmd, values['reference-cmd'], patience);
  const name = values.name ?? (cmd === undefined ? 'grpc-keyprovider' : 'kmscrypt');
  // The level of packets needs fakes, which take a while to load.
  const playPackets = async () =>
    (await import('./conformance/packets.ts')).playVectors(
      { door, keys: values.keys, hasReference: values['reference-cmd'] !== undefined },
      (one) => only.test(`packets/${one}`),
    );
  const results = [
    ...(recipients.length === 0
      ? []
      : await playExchanges({ door, name, recipients }, (one) => only.test(`protocol/${one}`))),
    ...(values.packets ? await playPackets() : []),
  ];
  const expected = parseExpected(values.expected === undefined ? '' : readFileSync(values.expected, 'utf8'));
  const report = makeReport(results, expected, values.only === '');
  process.stdout.write(values.json ? `${JSON.stringify(report, null, 1)}\n` : formatReport(report));
  process.exitCode = isConformant(report) ? 0 : 1;
}
