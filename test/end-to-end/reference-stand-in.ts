// What the reference provider does with a request, over Google's public interface and independent of src: packets as its
// users have them in their registries, and its habits. Started by clients: `node reference-stand-in.ts ENDPOINT TOKEN`.

import { buffer } from 'node:stream/consumers';

const [endpoint = '', token = ''] = process.argv.slice(2);
const { op, keywrapparams, keyunwrapparams } = parse((await buffer(process.stdin)).toString());
const answer = op === 'keywrap' ? await wrap() : op === 'keyunwrap' ? await unwrap() : undefined;
if (answer !== undefined) process.stdout.write(JSON.stringify(answer));
else {
  process.stderr.write(`Operation ${op} not recognized\n`);
  process.exitCode = 1;
}

function parse(request: string) {
  try {
    return JSON.parse(request) ?? {};
  } catch {
    process.stderr.write('Error parsing the request\n');
    return process.exit(1);
  }
}

/** The first value is the key, whatever others there are; neither additional data nor a checksum. */
async function wrap(): Promise<object> {
  const keyUrl = Buffer.from(keywrapparams.ec.Parameters.kmscrypt[0], 'base64').toString();
  const { ciphertext } = await call(keyUrl, 'encrypt', { plaintext: keywrapparams.optsdata });
  const annotation = Buffer.from(`{"key_url":"${keyUrl}","wrapped_key":"${ciphertext}","wrap_type":"AES"}`);
  return { keywrapresults: { annotation: annotation.toString('base64') } };
}

/** The packet says which key opens it. */
async function unwrap(): Promise<object> {
  const packet = JSON.parse(Buffer.from(keyunwrapparams.annotation, 'base64').toString());
  const { plaintext } = await call(packet.key_url, 'decrypt', { ciphertext: packet.wrapped_key });
  return { keyunwrapresults: { optsdata: plaintext } };
}

async function call(
  keyUrl: string,
  method: string,
  body: object,
): Promise<{ ciphertext?: string; plaintext?: string }> {
  const response = await fetch(`${endpoint}/v1/${keyUrl.replace('gcpkms://', '')}:${method}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return JSON.parse(await response.text());
}
