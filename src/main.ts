#!/usr/bin/env node
// The command's front door.

import { ERROR_STATUS } from './base/errors.ts';
import { describeNoEnd, run } from './cli/run.ts';
import { processTerminal } from './cli/terminal.ts';

// A Bun executable has the name it was called by in argv0; under Node that is "node", and the script is argv[1].
const [, script = ''] = process.argv;
const name = script.startsWith('/$bunfs/') ? process.argv0 : script;
// For a command that comes to no end though nothing is left to wait for.
process.exitCode = ERROR_STATUS.internal.exit;
process.once('beforeExit', () => processTerminal.say(describeNoEnd(name)));
// Not by `await`: the bundler puts nothing that others import into a module that waits, and a start would load twenty
// modules where it loads five (docs/decisions.md).
void run({ name, words: process.argv.slice(2) }, processTerminal).then((status) => process.exit(status));
