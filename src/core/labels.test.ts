import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { matchesSelector, selectorKey, type Labels, type LabelSelector } from './labels.ts';

describe('matchesSelector', () => {
  const rows: [name: string, selector: LabelSelector, labels: Labels | undefined, matches: boolean][] = [
    ['empty selects all', {}, { app: 'a' }, true],
    ['empty selects the unlabelled', {}, undefined, true],
    ['equal label', { matchLabels: { app: 'a' } }, { app: 'a', x: 'y' }, true],
    ['other value', { matchLabels: { app: 'a' } }, { app: 'b' }, false],
    ['all labels must match', { matchLabels: { app: 'a', tier: 'db' } }, { app: 'a' }, false],
    ['In', { matchExpressions: [{ key: 'app', operator: 'In', values: ['a', 'b'] }] }, { app: 'b' }, true],
    ['In, absent key', { matchExpressions: [{ key: 'app', operator: 'In', values: ['a'] }] }, {}, false],
    ['NotIn', { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['a'] }] }, { app: 'a' }, false],
    [
      'NotIn holds for an absent key',
      { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['a'] }] },
      {},
      true,
    ],
    ['Exists', { matchExpressions: [{ key: 'app', operator: 'Exists' }] }, { app: '' }, true],
    ['Exists, absent key', { matchExpressions: [{ key: 'app', operator: 'Exists' }] }, {}, false],
    ['DoesNotExist', { matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] }, { app: '' }, false],
    ['DoesNotExist, absent key', { matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] }, {}, true],
    [
      'labels and expressions both',
      { matchLabels: { a: '1' }, matchExpressions: [{ key: 'b', operator: 'Exists' }] },
      { a: '1' },
      false,
    ],
    [
      'an unknown operator matches nothing',
      { matchExpressions: [{ key: 'app', operator: 'Gt', values: ['1'] }] },
      { app: '2' },
      false,
    ],
    ['inherited names are no labels', { matchExpressions: [{ key: 'constructor', operator: 'Exists' }] }, {}, false],
  ];
  for (const [name, selector, labels, matches] of rows) {
    it(name, () => assert.equal(matchesSelector(selector, labels), matches));
  }
});

describe('selectorKey', () => {
  it('does not depend on the order in which a selector was written', () => {
    const a: LabelSelector = {
      matchLabels: { x: '1', y: '2' },
      matchExpressions: [
        { key: 'k', operator: 'In', values: ['b', 'a'] },
        { key: 'j', operator: 'Exists' },
      ],
    };
    const b: LabelSelector = {
      matchExpressions: [
        { key: 'j', operator: 'Exists', values: [] },
        { key: 'k', operator: 'In', values: ['a', 'b'] },
      ],
      matchLabels: { y: '2', x: '1' },
    };
    assert.equal(selectorKey(a), selectorKey(b));
    assert.notEqual(selectorKey(a), selectorKey({ matchLabels: { x: '1' } }));
  });
});
