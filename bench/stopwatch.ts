// The process that times commands (command.ts): a task as JSON on standard input, figures as JSON on standard output.

import { readFileSync } from 'node:fs';
import { type Command, CommandRunner } from './command.ts';
import { interleave } from './measure.ts';
import { childrenSeconds } from './process.ts';

type Task = { readonly directory: string; readonly commands: readonly Command[]; readonly runs: number };

const { directory, commands, runs }: Task = JSON.parse(readFileSync(0, 'utf8'));
const runner = new CommandRunner(directory);
const spent = commands.map(() => ({ seconds: 0, runs: 0, failures: 0 }));
const contenders = commands.map((command, index) => ({
  name: command.words.join(' '),
  run() {
    const own = spent[index];
    for (;;) {
      const before = childrenSeconds();
      try {
        const time = runner.time(command);
        if (own !== undefined)
          Object.assign(own, { seconds: own.seconds + childrenSeconds() - before, runs: own.runs + 1 });
        return time;
      } catch (error) {
        // Another provider may fail now and then; what never succeeds has no time.
        if (own === undefined || ++own.failures > runs / 2) throw error;
      }
    }
  },
}));
const figures = await interleave(contenders, runs);
const complete = figures.map((figure, index) => {
  const { seconds = 0, runs: count = 1, failures = 0 } = spent[index] ?? {};
  return { ...figure, processor: (seconds * 1000) / count, failures };
});
process.stdout.write(JSON.stringify(complete));
