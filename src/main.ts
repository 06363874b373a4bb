#!/usr/bin/env node
// The command's front door.

import { run } from './cli/run.ts';
import { processTerminal } from './cli/terminal.ts';

// A Bun executable has the name it was called by in argv0; under Node that is "node", and the script is argv[1].
const [, script = ''] = process.argv;
const name = script.startsWith('/$bunfs/') ? process.argv0 : script;
process.exit(await run({ name, words: process.argv.slice(2) }, processTerminal));
