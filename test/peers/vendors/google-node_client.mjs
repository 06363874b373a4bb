/**
 * Google's client of Cloud KMS for Node over REST, with Google's library of credentials. A line comes with a question
 * and goes with an answer, as in `lines.py`.
 *
 * HTTPS_PROXY leads to the token services, and NODE_EXTRA_CA_CERTS says what is trusted; this client asks Cloud KMS
 * itself past the proxy.
 */
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

// Where NODE_PATH says, which `import` does not read.
const { KeyManagementServiceClient } = createRequire(import.meta.url)('@google-cloud/kms');
let client;

const methods = {
  /** With the credentials of a file, for a key service on this machine. */
  async open({ file, port }) {
    const apiEndpoint = '127.0.0.1';
    client = new KeyManagementServiceClient({ fallback: true, keyFilename: file, apiEndpoint, port });
    return null;
  },

  /** Makes one call, without another attempt. */
  async call({ rpc, request }) {
    const [answer] = await client[rpc](wrapChecksums(request), { retry: null, timeout: 10_000 });
    return unwrap(answer);
  },
};

/** JSON has a checksum as text; this library has it in a message of its own. */
function wrapChecksums(request) {
  return Object.fromEntries(
    Object.entries(request).map(([name, value]) => [name, name.endsWith('Crc32c') ? { value } : value]),
  );
}

function unwrap(answer) {
  return Object.fromEntries(
    Object.entries(answer).map(([name, value]) => {
      if (Buffer.isBuffer(value)) return [name, value.toString('base64')];
      return [name, name.endsWith('Crc32c') && value !== null ? String(value.value) : value];
    }),
  );
}

for await (const line of createInterface({ input: process.stdin })) {
  const { method, parameters } = JSON.parse(line);
  const answer = await methods[method](parameters).then(
    (result) => ({ result }),
    ({ name, message, code, reason }) => ({ error: { type: name, message, code, reason } }),
  );
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
