// Encrypts or rewraps an image in place, for the test that kills it: `node crash-child.ts encrypt|rewrap REFERENCE`.
import process from 'node:process';
import { encryptImage } from '../../src/image/encrypt.ts';
import { openImageStore } from '../../src/image/open.ts';
import { parseImageReference } from '../../src/image/reference.ts';
import { replaceKeys, rewrapImage } from '../../src/image/rewrap.ts';
import { packetKeys, v2Recipient } from './packet-recipients.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const [, , operation, reference = ''] = process.argv;
const store = openImageStore(parseImageReference(reference));
process.stdout.write('started\n');
if (operation === 'encrypt') await encryptImage(store, store, { recipients: [v2Recipient([A])] });
else await rewrapImage(store, { keys: replaceKeys(packetKeys([A]), [v2Recipient([A])]) });
await store.close();
