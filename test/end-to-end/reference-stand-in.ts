// What the reference provider does with a wrap request, over Google's public interface and independent of src: packets
// as its users have them in their registries. Started by skopeo: `node reference-stand-in.ts ENDPOINT TOKEN`.

import { buffer } from 'node:stream/consumers';

const [endpoint = '', token = ''] = process.argv.slice(2);
const { keywrapparams } = JSON.parse((await buffer(process.stdin)).toString());
const keyUrl = Buffer.from(keywrapparams.ec.Parameters.kmscrypt[0], 'base64').toString();
const answer = await fetch(`${endpoint}/v1/${keyUrl.replace('gcpkms://', '')}:encrypt`, {
  method: 'POST',
  headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
  // Neither additional data nor a checksum.
  body: JSON.stringify({ plaintext: keywrapparams.optsdata }),
});
const { ciphertext } = JSON.parse(await answer.text());
const annotation = Buffer.from(`{"key_url":"${keyUrl}","wrapped_key":"${ciphertext}","wrap_type":"AES"}`);
process.stdout.write(JSON.stringify({ keywrapresults: { annotation: annotation.toString('base64') } }));
