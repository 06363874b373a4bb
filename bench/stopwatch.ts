// The process that times commands (command.ts): a task as JSON on standard input, figures as JSON on standard output.

import { readFileSync } from 'node:fs';
import { type Command, CommandRunner } from './command.ts';
import { interleave } from './measure.ts';

type Task = { readonly directory: string; readonly commands: readonly Command[]; readonly runs: number };

const { directory, commands, runs }: Task = JSON.parse(readFileSync(0, 'utf8'));
const runner = new CommandRunner(directory);
const contenders = commands.map((command) => ({ name: command.words.join(' '), run: () => runner.time(command) }));
process.stdout.write(JSON.stringify(await interleave(contenders, runs)));
