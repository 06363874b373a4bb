// What a conformance run says: a result for each thing that was asked, held against the failures that were expected.

export type Level = 'protocol' | 'packets';

export type Result = {
  readonly level: Level;
  readonly name: string;
  readonly comment: string;
  /** What had to come of it. */
  readonly expected: string;
  readonly result: 'pass' | 'fail' | 'not-played';
  /** Why it failed or was not played. */
  readonly detail: string;
};

export type Report = {
  readonly results: readonly Result[];
  /** Failures that were expected, and those that were not. */
  readonly known: readonly Result[];
  readonly failures: readonly Result[];
  /** Names of expected failures that passed or that there are not. */
  readonly stale: readonly string[];
};

/**
 * The names in a list of expected failures: one a line, followed by anything; `#` begins a comment.
 */
export function parseExpected(text: string): ReadonlySet<string> {
  const lines = text.split('\n').map((line) => line.replace(/#.*/, '').trim());
  return new Set(lines.filter((line) => line !== '').map((line) => line.split(/\s/)[0] ?? ''));
}

/** @param whole whether everything was played, so that an expected failure that did not come is stale */
export function makeReport(results: readonly Result[], expected: ReadonlySet<string>, whole: boolean): Report {
  const failed = results.filter(({ result }) => result === 'fail');
  const failedNames = new Set(failed.map(({ name }) => name));
  const played = new Set(results.filter(({ result }) => result !== 'not-played').map(({ name }) => name));
  return {
    results,
    known: failed.filter(({ name }) => expected.has(name)),
    failures: failed.filter(({ name }) => !expected.has(name)),
    stale: [...expected].filter((name) => !failedNames.has(name) && (whole || played.has(name))),
  };
}

export function isConformant({ failures, stale }: Report): boolean {
  return failures.length === 0 && stale.length === 0;
}

/** The report for a reader. */
export function formatReport(report: Report): string {
  const lines = (['protocol', 'packets'] as const).map((level) => {
    const ofLevel = report.results.filter((one) => one.level === level);
    const count = (result: Result['result']) => ofLevel.filter((one) => one.result === result).length;
    if (ofLevel.length === 0) return `${level}: not asked for`;
    return `${level}: ${count('pass')} passed, ${count('fail')} failed, ${count('not-played')} not played`;
  });
  const show = (word: string, { name, comment, expected, detail }: Result) =>
    `${word} ${name} (${comment})\n  wanted: ${expected}\n  got: ${detail}`;
  for (const one of report.failures) lines.push(show('FAILED', one));
  for (const one of report.known) lines.push(show('failed as expected', one));
  for (const name of report.stale) lines.push(`${name} is listed as an expected failure and did not fail`);
  const reasons = new Map<string, number>();
  for (const { result, detail } of report.results) {
    if (result === 'not-played') reasons.set(detail, (reasons.get(detail) ?? 0) + 1);
  }
  for (const [reason, count] of reasons) lines.push(`not played: ${count}, ${reason}`);
  lines.push(isConformant(report) ? 'conformant' : 'not conformant');
  return `${lines.join('\n')}\n`;
}
