/** Members as Go's encoding/json finds them. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asObject, type JsonObject, parseJson } from '../../src/base/json.ts';
import { checkSpelling, findMember, knownNames } from '../../src/base/json-members.ts';

/** Each was given to encoding/json of Go 1.26, which took it for `tasks`. */
const SPELLINGS = ['Tasks', 'TASKS', 'tASKS', 'ta\u017fks', 'tas\u212as', 'TA\u017f\u212a\u017f', 'task\u017f'];
/** Go did not take these for it. */
const OTHERS = ['ta_sks', 'task', 'taskss', 'tasks ', '\u0442asks', 'ta\u00dfks', 'tasks\u0000', 't\u00e1sks', ''];

describe('members of objects', () => {
  it('are found in every spelling that Go finds', () => {
    for (const name of ['tasks', ...SPELLINGS]) assert.equal(findMember(objectOf([name]), 'tasks'), 0, name);
    for (const name of OTHERS) assert.equal(findMember(objectOf([name]), 'tasks'), undefined, name);
  });

  it('are refused in two spellings', () => {
    const all = ['tasks', ...SPELLINGS];
    for (const first of all) {
      for (const second of all) {
        if (first === second) continue;
        assert.throws(() => findMember(objectOf([first, second]), 'tasks'), { code: 'bad-input' });
      }
    }
  });

  it('are refused in any other spelling than their own where readers differ', () => {
    const known = knownNames(['tasks', 'os.version']);
    for (const name of SPELLINGS)
      assert.throws(() => checkSpelling(objectOf([name]), known, 'the manifest'), { code: 'bad-input' }, name);
    checkSpelling(objectOf(['tasks', 'os.version', ...OTHERS]), known, 'the manifest');
    assert.throws(() => checkSpelling(objectOf(['o\u017f.version']), known, 'the manifest'), { code: 'bad-input' });
  });
});

function objectOf(names: readonly string[]): JsonObject {
  const json = Object.fromEntries(names.map((name, index) => [name, index]));
  return asObject(parseJson(Buffer.from(JSON.stringify(json)), 'the text')) ?? new Map();
}
