// The script by which fish completes our commands.

import type { Start } from '../options/starts.ts';
import { type CompletedCommand, distinctOptions, markedStarts, quoted, valueOptions } from './model.ts';

/** @returns the whole script */
export function fishScript(commands: readonly CompletedCommand[]): string {
  return `# fish completion for ocicrypt-kms, made by: ocicrypt-kms completion fish

# Prints what continues the word: each argument is a start, and %d, %f or %w what follows it.
function __ocicrypt_kms_values
    set -l current (string replace -r -- '^--[^=]+=' '' (commandline -ct))
    set current (string unescape -- $current; or echo $current)
    for form in $argv
        set -l start (string replace -r -- '%[dfw]$' '' $form)
        set -l head (string sub -l (string length -- "$start") -- "$current")
        if not string match -qr -- '%[df]$' $form; or test "$head" != "$start"
            test -n "$start"; and echo $start
            continue
        end
        set -l rest (string sub -s (math (string length -- "$start") + 1) -- "$current")
        if test -z "$start"
            string match -q -- '*%d' $form; and __fish_complete_directories "$rest" ''; or __fish_complete_path "$rest" ''
            continue
        end
        # After a start that ends in a slash stands a whole path.
        set -l root ''
        string match -q -- '*/' $start; and set root /
        for path in $root$rest*
            set -l end ''
            test -d $path; and set end /
            test -z "$end"; and string match -q -- '*%d' $form; and continue
            echo $start(string sub -s (math (string length -- "$root") + 1) -- $path)$end
        end
    end
end

# Whether the first word is one of these commands.
function __ocicrypt_kms_in
    set -l words (commandline -opc)
    test (count $words) -ge 2; and contains -- $words[2] $argv
end

# Whether this is the operand of a number of a command; a number and + is that operand and all later ones.
function __ocicrypt_kms_operand
    __ocicrypt_kms_in $argv[1]; or return
    set -l words (commandline -opc)[3..]
    set -l operand 0
    set -l awaited ''
    for word in $words
        if test -n "$awaited"
            set awaited ''
        else if not string match -q -- '-*' $word
            set operand (math $operand + 1)
        else if contains -- (string sub -s 3 -- $word) ${valueOptions(commands).join(' ')}
            set awaited $word
        end
    end
    test -z "$awaited"; or return
    test $operand -eq (string replace + '' -- $argv[2]); and return
    string match -q -- '*+' $argv[2]; and test $operand -gt (string replace + '' -- $argv[2])
end

complete -c ocicrypt-kms -f
${commands.map(commandLine).join('\n')}
${optionLines(commands).join('\n')}
${commands.flatMap(operandLines).join('\n')}
`;
}

function commandLine({ name, describe }: CompletedCommand): string {
  return `complete -c ocicrypt-kms -n 'test (count (commandline -opc)) -eq 1' -a ${name} -d ${quoted(describe)}`;
}

function optionLines(commands: readonly CompletedCommand[]): readonly string[] {
  return distinctOptions(commands).map(({ option: { name, value, describe, starts }, takers }) => {
    const condition = quoted(`__ocicrypt_kms_in ${takers.join(' ')}`);
    const taken = value === undefined ? '' : ` -x${starts.length === 0 ? '' : ` -a ${valuesOf(starts)}`}`;
    return `complete -c ocicrypt-kms -n ${condition} -l ${name}${taken} -d ${quoted(describe)}`;
  });
}

function operandLines({ name, operands }: CompletedCommand): readonly string[] {
  return operands.map(({ starts, isRepeated }, index) => {
    const place = isRepeated ? `${index}+` : index;
    return `complete -c ocicrypt-kms -n '__ocicrypt_kms_operand ${name} ${place}' -a ${valuesOf(starts)}`;
  });
}

function valuesOf(starts: readonly Start[]): string {
  return quoted(`(__ocicrypt_kms_values ${markedStarts(starts).join(' ')})`);
}
