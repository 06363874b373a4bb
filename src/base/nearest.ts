// Finds the word that was meant, for a hint.

/** The nearest of `names` to a word that is none of them, if one is near. */
export async function nearest(word: string, names: readonly string[]): Promise<string | undefined> {
  const { distance } = await import('fastest-levenshtein');
  const [best] = names
    .map((name) => ({ name, steps: distance(word.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.steps - b.steps);
  // Of a word of one or two letters everything short is near.
  const limit = Math.min(Math.max(2, Math.floor(word.length / 3)), word.length - 1);
  return best !== undefined && best.steps <= limit ? best.name : undefined;
}
