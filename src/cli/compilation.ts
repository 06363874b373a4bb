// Tells the runtime when to compile: the executable starts with that put off (scripts/build.ts).

/**
 * Lets hot code be compiled as soon as the engine would by itself. For commands that work longer than it takes to
 * answer one request; does nothing on Node, where compilation is never put off.
 */
export function compileHotCode(): void {
  const unsafe = memberOf(memberOf(globalThis, 'Bun'), 'unsafe');
  const setPolicy = memberOf(unsafe, 'setJITPolicy');
  if (typeof setPolicy === 'function') setPolicy.call(unsafe, ENGINE_DEFAULT);
}

/** The scale of the engine's own thresholds: https://bun.com/reference/bun/unsafe/setJITPolicy */
const ENGINE_DEFAULT = 1;

function memberOf(value: unknown, name: string): unknown {
  return (typeof value === 'object' && value !== null) || typeof value === 'function'
    ? Reflect.get(value, name)
    : undefined;
}
