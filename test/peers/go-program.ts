/**
 * Builds a small Go program around what somebody else wrote, once for each version, in `.cache/go`.
 *
 *     const program = await buildGoProgram(new URL('vault-transit/', import.meta.url), ['github.com/hashicorp/vault@v1.21.4']);
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const cache = fileURLToPath(new URL('../../.cache/go', import.meta.url));
/** Two cores compile Vault's transit engine in two minutes. */
const PATIENCE = 900_000;

/** The path of the program in `directory`. @param modules with their versions: everything else follows from them */
export async function buildGoProgram(directory: URL, modules: readonly string[]): Promise<string> {
  const source = fileURLToPath(directory);
  const name = basename(source);
  const identity = [await readFile(join(source, 'main.go'), 'utf8'), ...modules].join('\n');
  const program = join(cache, `${name}-${createHash('sha256').update(identity).digest('hex').slice(0, 12)}`);
  if (existsSync(program)) return program;
  await mkdir(cache, { recursive: true });
  const scratch = await mkdtemp(join(cache, 'build-'));
  try {
    await cp(source, scratch, { recursive: true });
    const options = { cwd: scratch, timeout: PATIENCE, maxBuffer: 16 * 1024 * 1024 };
    await run('go', ['mod', 'init', `peer/${name}`], options);
    await run('go', ['get', ...modules], options);
    await run('go', ['mod', 'tidy'], options);
    await run('go', ['build', '-o', 'program', '.'], options);
    await rename(join(scratch, 'program'), program);
    return program;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
