// PKCS#11 tokens that say other things of themselves than SoftHSM does: its answers, changed on the way to us.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { formatKeyUri, parseKeyUri } from '../../../src/base/key-uri.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { openPkcs11, type Pkcs11Settings } from '../../../src/kms/pkcs11/key.ts';
import { createKekStore } from '../../../src/kms/store.ts';
import { hasOperatorParts } from '../../../src/provider/policy.ts';
import { createToken, ensureSoftHsm, type SoftHsm, type SoftToken, useTokenStore } from '../../fixtures/softhsm.ts';
import { code, soon } from '../expect.ts';

const PIN = '246813579';
const FLAGS = { loginRequired: 0x4, pad: 0x100, countLow: 0x10000, finalTry: 0x20000, locked: 0x40000 };

/** What the next token says, and what it was asked: read and written by the binding that stands before the real one. */
type Trial = {
  /** CKR_ value with which the information of other tokens is refused. */
  others?: number;
  /** The same of every token. */
  all?: number;
  readonly added: number;
  readonly removed: number;
  /** Whether its public keys cannot be used without a login, as those of tpm2-pkcs11. */
  readonly loginFirst?: boolean;
  /** Whether the first flag is told only until a login, as the standard has it. */
  readonly untilLogin?: boolean;
  readonly pins: string[];
};
const ORDINARY = { added: 0, removed: 0 };

const found = await ensureSoftHsm();
if ('missing' in found) {
  test('PKCS#11 tokens of other kinds', (t) => {
    if (process.env.CI === 'true') throw new Error(found.missing);
    t.skip(found.missing);
  });
} else {
  const hsm = found;
  let directory: string;
  let token: SoftToken;
  let pinFile: string;
  let number = 0;
  const opened: Kek[] = [];

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'pkcs11-tokens-'));
    await useTokenStore(directory);
    await writeBinding(directory, hsm);
    pinFile = await write('pin', PIN);
  });
  beforeEach(async () => {
    await closeAll();
    // Each trial has a token of its own: what was wrong once is remembered for the process.
    token = createToken(hsm, `trial ${++number}`, PIN);
    token.createAesKey('k');
  });
  after(async () => {
    await closeAll();
    await rm(directory, { recursive: true, force: true });
  });

  async function write(name: string, text: string): Promise<string> {
    const path = join(directory, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  }
  async function closeAll(): Promise<void> {
    for (const kek of opened.splice(0)) kek.close?.();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  function open(trial: Omit<Trial, 'pins'>, more: Partial<Pkcs11Settings> = {}, text = uri()) {
    const shown: Trial = { ...trial, pins: [] };
    Reflect.set(globalThis, 'pkcs11Trial', { label: token.label, ...shown });
    const parsed = parseKeyUri(text);
    assert.ok(parsed.scheme === 'pkcs11');
    const settings = { modules: [hsm.module], bindingDirectory: directory, pinFile, environment: {}, ...more };
    const kek = openPkcs11(parsed, settings);
    opened.push(kek);
    return { kek, pins: shown.pins, wrap: () => kek.wrap(randomBytes(32), {}, soon()) };
  }
  const uri = (object = 'k') => `pkcs11:token=${encodeURIComponent(token.label)};object=${object}`;
  const typing = (answer: string) => {
    const questions: string[] = [];
    return {
      questions,
      async prompt(question: string) {
        questions.push(question);
        return new TextEncoder().encode(answer);
      },
    };
  };

  describe('a token', () => {
    test('is found beside one that its module does not recognise', async () => {
      await open({ ...ORDINARY, others: 0xe1 }).wrap();
      await open({ ...ORDINARY, others: 0x30 }).wrap();
      const unreadable = open({ ...ORDINARY, all: 0x30 });
      await code(unreadable.wrap(), 'unavailable');
      await closeAll();
      await code(open({ ...ORDINARY, all: 0xe1 }).wrap(), 'not-found');
    });

    test('that requires no login is not logged in to', async () => {
      token.createRsaKey('r', { withPublic: true });
      // SoftHSM itself hides what is private; a public object shows that nothing is asked.
      const kek = open({ added: 0, removed: FLAGS.loginRequired }, { pinFile: undefined, oaepSha1: true }, uri('r'));
      await kek.wrap();
      await code(open({ added: 0, removed: FLAGS.loginRequired }, { pinFile: undefined }).wrap(), 'not-found');
      await code(open(ORDINARY, { pinFile: undefined }).wrap(), 'unauthenticated');
    });

    test('that wants a login before its public keys are used gets one, and wraps no longer than OAEP does', async () => {
      token.createRsaKey('r', { withPublic: true });
      const { wrap, pins, kek } = open({ ...ORDINARY, loginFirst: true }, { oaepSha1: true }, uri('r'));
      const wrapped = await wrap();
      assert.equal(wrapped.wrapped.length, 256);
      assert.deepEqual(pins, [PIN]);
      assert.equal((await kek.unwrap(wrapped, {}, soon())).length, 32);
      assert.equal(pins.length, 1);
      await closeAll();
      const without = open({ ...ORDINARY, loginFirst: true }, { oaepSha1: true, pinFile: undefined }, uri('r'));
      await code(without.wrap(), 'unauthenticated');
    });

    test('with a pad of its own asks for the PIN itself, unless one is configured', async () => {
      const { prompt, questions } = typing(PIN);
      const pad = open({ added: FLAGS.pad, removed: 0 }, { pinFile: undefined, prompt });
      await pad.wrap();
      assert.deepEqual([pad.pins, questions], [[''], []]);
      await closeAll();
      const configured = open({ added: FLAGS.pad, removed: 0 });
      await configured.wrap();
      assert.deepEqual(configured.pins, [PIN]);
    });

    test('is sent a PIN without what slipped in around it, or none: a wrong one would burn a try', async () => {
      for (const stray of [
        `${PIN}\n`,
        ` ${PIN}`,
        `${PIN}\r\n`,
        `\uFEFF${PIN}`,
        `${PIN}\0`,
        `${PIN}\n${PIN}`,
        '\n',
        ' ',
      ]) {
        const file = await write('stray-pin', stray);
        for (const more of [{ pinFile: file }, { pinFile: undefined, pinVariable: 'P', environment: { P: stray } }]) {
          const { wrap, pins } = open(ORDINARY, more);
          const outcome = await wrap().then(
            () => 'wrapped',
            (error: unknown) => asOcicryptError(error).code,
          );
          assert.ok(outcome === 'wrapped' || outcome === 'configuration', `${JSON.stringify(stray)}: ${outcome}`);
          assert.deepEqual(pins, outcome === 'wrapped' ? [PIN] : []);
          await closeAll();
        }
      }
    });

    test('that is locked is sent no PIN', async () => {
      const locked = open({ added: FLAGS.locked | FLAGS.countLow | FLAGS.pad, removed: 0 });
      await code(locked.wrap(), 'unauthenticated');
      assert.deepEqual(locked.pins, []);
    });
  });

  describe('a token that always locks at the next wrong PIN', () => {
    const always = { added: FLAGS.finalTry, removed: 0 };

    test('is sent none unasked, and the hint names the option that permits it', async () => {
      const { wrap, pins } = open(always);
      const error = await code(wrap(), 'unauthenticated');
      assert.match(error.hint ?? '', /doctor.*pkcs11\.finalTry/);
      assert.deepEqual(pins, []);
    });

    test('is usable if the operator permits it, but for a PIN that was wrong', async () => {
      await open(always, { finalTry: true }).wrap();
      await closeAll();
      const { wrap, pins } = open({ added: FLAGS.finalTry | FLAGS.countLow, removed: 0 }, { finalTry: true });
      await code(wrap(), 'unauthenticated');
      assert.deepEqual(pins, []);
    });

    test('takes what a person types, who is told', async () => {
      const { prompt, questions } = typing(PIN);
      await open(always, { pinFile: undefined, prompt }).wrap();
      assert.match(questions.join(), /^the next wrong PIN locks the token! PIN for /);
    });

    test('makes the doctor say so, once the PIN was right', async () => {
      const error = await code(open(always, { ...typing(PIN), askInDoubt: true }).wrap(), 'configuration');
      assert.match(error.hint ?? '', /pkcs11\.finalTry/);
    });
  });

  describe('the doctor, after a wrong PIN', () => {
    const doubtful = { added: FLAGS.countLow, removed: 0, untilLogin: true };

    test('asks for the right one, and tries that alone', async () => {
      const { prompt, questions } = typing(PIN);
      const { wrap, pins } = open(doubtful, { askInDoubt: true, prompt });
      await wrap();
      assert.deepEqual([questions.length, pins], [1, [PIN]]);
    });

    test('says that another is configured, without trying that one', async () => {
      const wrong = await write('wrong', '999999999');
      const { wrap, pins } = open(doubtful, { pinFile: wrong, askInDoubt: true, ...typing(PIN) });
      const error = await code(wrap(), 'configuration');
      assert.match(error.message, /another is configured/);
      assert.deepEqual(pins, [PIN]);
    });

    test('burns no try where nothing is typed, or nobody can be asked', async () => {
      for (const asking of [typing(''), {}]) {
        const { wrap, pins } = open(doubtful, { askInDoubt: true, ...asking });
        const error = await code(wrap(), 'unauthenticated');
        assert.match(error.hint ?? '', /ocicrypt-kms doctor/);
        assert.deepEqual(pins, []);
        await closeAll();
      }
    });

    test('is the only one that asks: a command that a client runs refuses', async () => {
      const { prompt, questions } = typing(PIN);
      const { wrap, pins } = open(doubtful, { prompt });
      await code(wrap(), 'unauthenticated');
      assert.deepEqual([questions, pins], [[], []]);
    });
  });

  describe('slot-id', () => {
    test('says where to look, and stands in no packet', async () => {
      const slots = slotsOf(hsm, token.label);
      const { kek, wrap } = open(ORDINARY, {}, `pkcs11:slot-id=${slots.own};object=k`);
      const wrapped = await wrap();
      assert.equal(wrapped.key, 'pkcs11:object=k');
      await kek.unwrap(wrapped, {}, soon());
      await closeAll();
      await code(open(ORDINARY, {}, `pkcs11:slot-id=${slots.other};object=k2`).wrap(), 'not-found');
      await code(open(ORDINARY, {}, `${uri()};slot-id=${slots.other}`).wrap(), 'not-found');
    });

    test("is the operator's word, and part of what is kept open", async () => {
      const [first, second] = [parseKeyUri('pkcs11:slot-id=1;object=k'), parseKeyUri('pkcs11:slot-id=2;object=k')];
      assert.equal(formatKeyUri(first), formatKeyUri(second));
      assert.ok(hasOperatorParts(first));
      assert.ok(!hasOperatorParts(parseKeyUri('pkcs11:object=k')));
      const pkcs11 = { modules: [hsm.module], environment: {} };
      const store = createKekStore({ pkcs11 });
      assert.notEqual(await store.open(first), await store.open(second));
      await store.close();
    });
  });
}

/** The numbers of the token's slot and of another. */
function slotsOf({ module, binding }: SoftHsm, label: string): { readonly own: string; readonly other: string } {
  const { PKCS11 } = createRequire(import.meta.url)(join(binding, 'node_modules', 'pkcs11js'));
  const p11 = new PKCS11();
  p11.load(module);
  p11.C_Initialize();
  try {
    const slots: readonly Buffer[] = p11.C_GetSlotList(true);
    const isOwn = (slot: Buffer) => p11.C_GetTokenInfo(slot).label.trimEnd() === label;
    const numbers = [slots.find(isOwn), slots.find((slot) => !isOwn(slot))].map((slot) => slot?.readBigUInt64LE());
    return { own: String(numbers[0]), other: String(numbers[1]) };
  } finally {
    p11.C_Finalize();
  }
}

/** A package pkcs11js that asks the real one, and changes what a token says as the trial has it. */
async function writeBinding(directory: string, { binding }: SoftHsm): Promise<void> {
  const place = join(directory, 'node_modules', 'pkcs11js');
  await mkdir(place, { recursive: true });
  await writeFile(
    join(place, 'index.js'),
    `const real = require(${JSON.stringify(join(binding, 'node_modules', 'pkcs11js'))});
const refusal = (code) => Object.assign(new Error('CKR'), { code });
const change = (p11) => {
  let isLoggedIn = false;
  return {
    C_GetTokenInfo(slot) {
      const info = p11.C_GetTokenInfo(slot);
      const trial = globalThis.pkcs11Trial;
      if (trial.all) throw refusal(trial.all);
      if (info.label.trimEnd() !== trial.label) {
        if (trial.others) throw refusal(trial.others);
        return info;
      }
      const added = trial.untilLogin && isLoggedIn ? 0 : trial.added;
      return { ...info, flags: (info.flags | added) & ~trial.removed };
    },
    C_Login(session, user, pin) {
      globalThis.pkcs11Trial.pins.push(pin);
      p11.C_Login(session, user, pin === '' ? ${JSON.stringify(PIN)} : pin);
      isLoggedIn = true;
    },
    C_EncryptInit(...words) {
      if (globalThis.pkcs11Trial.loginFirst && !isLoggedIn) throw refusal(0x101);
      p11.C_EncryptInit(...words);
    },
    async C_EncryptAsync(session, input, output) {
      const made = await p11.C_EncryptAsync(session, input, output);
      return globalThis.pkcs11Trial.loginFirst ? output : made;
    },
  };
};
class PKCS11 {
  constructor() {
    const p11 = new real.PKCS11();
    const changed = change(p11);
    const get = (_, name) => changed[name] ?? (typeof p11[name] === 'function' ? p11[name].bind(p11) : p11[name]);
    return new Proxy(p11, { get });
  }
}
module.exports = { ...real, PKCS11 };
`,
  );
}
