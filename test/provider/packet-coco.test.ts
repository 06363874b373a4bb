// Packets of Confidential Containers, and of hown3d's AWS provider: read, written, refused, with keys that really wrap.
import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openAwsKms } from '../../src/kms/awskms/key.ts';
import { openKbsKey } from '../../src/kms/kbs/key.ts';
import { createProvider, type ProviderOptions } from '../../src/provider/handle.ts';
import { decodePacket } from '../../src/provider/packet.ts';
import { isPacketCoco } from '../../src/provider/packet-coco.ts';
import { parseAllowRule } from '../../src/provider/policy.ts';
import { type FakeAwsKms, startFakeAwsKms } from '../fakes/aws-kms.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { OPTSDATA } from '../fixtures/packets.ts';

const KID = 'kbs:///default/key/key_id1';

let directory: string;
let kms: FakeAwsKms;
let authority: string;
let arn: string;
let file: string;
const brokerKey = randomBytes(32);

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'coco-'));
  const ca = await createCertificateAuthority(directory);
  authority = ca.certificate;
  kms = await startFakeAwsKms({ tls: await ca.issue('server') });
  arn = kms.createKey();
  file = join(directory, 'kek');
  await writeFile(file, brokerKey, { mode: 0o600 });
});
after(async () => {
  await kms.close();
  await rm(directory, { recursive: true, force: true });
});

function provider(allow: readonly string[], more: Partial<ProviderOptions> = {}) {
  return createProvider({
    async openKek(uri) {
      if (uri.scheme === 'kbs') return openKbsKey(uri, { files: new Map([[KID, file]]) });
      assert.ok(uri.scheme === 'awskms');
      const environment = { AWS_ACCESS_KEY_ID: kms.accessKey.id, AWS_SECRET_ACCESS_KEY: kms.accessKey.secret };
      return openAwsKms(uri, { endpoint: kms.endpoint, region: 'eu-west-1', caFiles: [authority], environment });
    },
    rules: allow.map(parseAllowRule),
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'kmscrypt' },
    ...more,
  });
}

async function wrap(more: Partial<ProviderOptions>, ...keys: readonly string[]): Promise<Record<string, unknown>> {
  const named = keys.map((key) => Buffer.from(key).toString('base64'));
  const keywrapparams = { ec: { Parameters: { kmscrypt: named } }, optsdata: OPTSDATA.toString('base64') };
  const request = Buffer.from(JSON.stringify({ op: 'keywrap', keywrapparams }));
  const reply = JSON.parse(Buffer.from(await provider(keys, more).handle(request)).toString());
  return JSON.parse(Buffer.from(reply.keywrapresults.annotation, 'base64').toString());
}

async function unwrap(packet: unknown, allow: readonly string[], more: Partial<ProviderOptions> = {}): Promise<Buffer> {
  const annotation = Buffer.from(JSON.stringify(packet)).toString('base64');
  const keyunwrapparams = { dc: { Parameters: null }, annotation };
  const request = Buffer.from(JSON.stringify({ op: 'keyunwrap', keyunwrapparams }));
  const reply = JSON.parse(Buffer.from(await provider(allow, more).handle(request)).toString());
  return Buffer.from(reply.keyunwrapresults.optsdata, 'base64');
}

describe('a v2 packet of Confidential Containers for AWS', () => {
  test('is written with the ARN that answered, its region and the context, and opened again', async () => {
    kms.createAlias('alias/guest', arn);
    const packet = await wrap({ packet: 'coco-v2', labels: { env: 'prod' } }, 'awskms:///alias/guest');
    assert.deepEqual(
      { ...packet, wrapped_data: '' },
      {
        version: '0.1.0',
        kid: arn,
        wrapped_data: '',
        provider: 'aws',
        provider_settings: { region: 'eu-west-1' },
        annotations: { encryption_context: { 'ocicrypt-kms': 'coco-v2', 'label.env': 'prod' } },
      },
    );
    assert.deepEqual(await unwrap(packet, [arn]), OPTSDATA);
    assert.deepEqual(await unwrap(packet, [arn], { labels: { env: 'prod' } }), OPTSDATA);
    await assert.rejects(unwrap(packet, [arn], { labels: { env: 'test' } }), { code: 'not-allowed' });
    const changed = {
      ...packet,
      annotations: { encryption_context: { 'ocicrypt-kms': 'coco-v2', 'label.env': 'test' } },
    };
    await assert.rejects(unwrap(changed, [arn]), { code: 'integrity' });
    await assert.rejects(unwrap(packet, [kms.createKey()]), { code: 'not-allowed' });
  });

  test('is opened whatever region it names, where the operator says', async () => {
    const packet = await wrap({ packet: 'coco-v2' }, arn);
    assert.deepEqual(await unwrap({ ...packet, provider_settings: { region: 'evil.test' } }, [arn]), OPTSDATA);
    assert.deepEqual(await unwrap({ ...packet, kid: arn.replace(/^.*\//, ''), provider: 'AWS' }, [arn]), OPTSDATA);
  });

  test('holds one symmetric AWS key', async () => {
    const rsa = kms.createKey({ rsa: 3072 });
    await assert.rejects(wrap({ packet: 'coco-v2' }, rsa), { code: 'bad-input' });
    await assert.rejects(wrap({ packet: 'coco-v2' }, arn, rsa), { code: 'bad-input' });
    await assert.rejects(
      wrap({ packet: 'coco-v2' }, 'age1y8m84r6pwd4da5d45zzk03rlgv2xr7fn9px80suw3psrahul44ashl0usm'),
      {
        code: 'bad-input',
      },
    );
  });
});

describe('the members of a packet of Confidential Containers', () => {
  const broker = { kid: KID, wrapped_data: base64(17), iv: base64(12), wrap_type: 'A256GCM' };
  const aws = { kid: '1234abcd-12ab-34cd-56ef-1234567890ab', wrapped_data: base64(1), provider: 'aws' };
  const formatOf = (packet: object) => decodePacket(Buffer.from(JSON.stringify(packet))).format;

  test('say what it is', () => {
    assert.equal(formatOf(broker), 'coco-v1');
    for (const more of [{ version: '0.1.0' }, { provider: 'kbs' }, { version: '0.1.0', provider: 'KBS' }])
      assert.equal(formatOf({ ...broker, ...more }), 'coco-v2');
    assert.equal(formatOf(aws), 'coco-v2');
    for (const [members, is] of [
      [['kid', 'wrapped_data'], true],
      [['kid', 'wrapped_data', 'attester_endpoint'], false],
      [['kid'], false],
      [['wrapped_data'], false],
      [[], false],
    ] as const)
      assert.equal(isPacketCoco(new Map(members.map((name) => [name, null]))), is, members.join());
  });

  test('have the sizes of AES-GCM, and a context of 16 texts of 1024 characters at most', () => {
    for (const [member, bytes] of [
      ['iv', 11],
      ['iv', 13],
      ['wrapped_data', 16],
      ['wrapped_data', 0],
    ] as const)
      assert.throws(() => formatOf({ ...broker, [member]: base64(bytes) }), { code: 'bad-input' });
    const withContext = (count: number, length: number) => ({
      ...aws,
      annotations: {
        encryption_context: Object.fromEntries(
          Array.from({ length: count }, (_, index) => [index, 'x'.repeat(length)]),
        ),
      },
    });
    assert.equal(formatOf(withContext(16, 1024)), 'coco-v2');
    for (const [count, length] of [
      [17, 1],
      [1, 1025],
    ] as const)
      assert.throws(() => formatOf(withContext(count, length)), { code: 'bad-input' });
  });

  function base64(length: number): string {
    return Buffer.alloc(length, 7).toString('base64');
  }
});

describe("a packet for the key broker's key", () => {
  const packet = () => {
    const iv = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', brokerKey, iv, { authTagLength: 16 });
    const wrapped = Buffer.concat([cipher.update(OPTSDATA), cipher.final(), cipher.getAuthTag()]);
    return { kid: KID, wrapped_data: wrapped.toString('base64'), iv: iv.toString('base64'), wrap_type: 'A256GCM' };
  };

  test('is opened with the file that the operator names for it, in v1 and in v2', async () => {
    assert.deepEqual(await unwrap(packet(), [KID]), OPTSDATA);
    assert.deepEqual(await unwrap({ ...packet(), kid: 'kbs://broker.test:8080/default/key/key_id1' }, [KID]), OPTSDATA);
    const more = { version: '0.1.0', provider: 'kbs', provider_settings: {}, annotations: {} };
    assert.deepEqual(await unwrap({ ...packet(), ...more }, [KID]), OPTSDATA);
  });

  test('is refused where it is not allowed, changed, or of another kind', async () => {
    for (const [change, code] of [
      [{ kid: 'kbs:///default/key/other' }, 'not-allowed'],
      [{ wrapped_data: randomBytes(200).toString('base64') }, 'integrity'],
      [{ iv: randomBytes(12).toString('base64') }, 'integrity'],
      [{ iv: randomBytes(16).toString('base64') }, 'bad-input'],
      [{ wrap_type: 'A256CTR' }, 'bad-input'],
      [{ wrap_type: undefined }, 'bad-input'],
      [{ version: '0.2.0' }, 'bad-input'],
      [{ version: 1 }, 'bad-input'],
      [{ provider: 'ehsm' }, 'bad-input'],
      [{ provider: 'aws' }, 'bad-input'],
      [{ kid: 'file:///etc/passwd' }, 'bad-input'],
      [{ kid: 'kbs:///../x/y' }, 'bad-input'],
      [{ wrapped_data: '' }, 'bad-input'],
    ] as const) {
      await assert.rejects(unwrap({ ...packet(), ...change }, [KID]), { code }, JSON.stringify(change));
    }
    const context = { annotations: { encryption_context: { a: 1 } } };
    await assert.rejects(unwrap({ ...packet(), kid: arn, provider: 'aws', ...context }, [arn]), { code: 'bad-input' });
  });

  test('is not written with the key itself', async () => {
    await assert.rejects(wrap({}, KID), { code: 'bad-input' });
  });
});

describe("a packet of hown3d's provider", () => {
  const wrapped = async () => {
    const uri = parseKeyUri(arn);
    assert.ok(uri.scheme === 'awskms');
    const kek = openAwsKms(uri, {
      endpoint: kms.endpoint,
      caFiles: [authority],
      environment: { AWS_ACCESS_KEY_ID: kms.accessKey.id, AWS_SECRET_ACCESS_KEY: kms.accessKey.secret },
    });
    const result = await kek.wrap(OPTSDATA, {}, AbortSignal.timeout(10_000));
    kek.close?.();
    return Buffer.from(result.wrapped).toString('base64');
  };

  test('is opened by ARN, bare id and alias, if the operator allows that', async () => {
    kms.createAlias('alias/theirs', arn);
    const wrapped_key = await wrapped();
    const id = arn.replace(/^.*\//, '');
    for (const [key_url, allowed] of [
      [arn, arn],
      [id, arn],
      [id, `awskms:///${id}`],
      ['alias/theirs', 'awskms:///alias/theirs'],
    ] as const) {
      assert.deepEqual(await unwrap({ key_url, wrapped_key }, [allowed]), OPTSDATA);
    }
    await assert.rejects(unwrap({ key_url: 'alias/theirs', wrapped_key }, [arn]), { code: 'not-allowed' });
    await assert.rejects(unwrap({ key_url: id, wrapped_key }, [kms.createKey()]), { code: 'not-allowed' });
  });

  test('is not what has a type and no scheme', () => {
    const packet = Buffer.from(JSON.stringify({ key_url: 'alias/x', wrapped_key: 'AAAA', wrap_type: 'AES' }));
    assert.throws(() => decodePacket(packet), { code: 'bad-input' });
  });
});
