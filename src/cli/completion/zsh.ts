// The script by which zsh completes our commands.

import type { Start } from '../options/starts.ts';
import { type CompletedCommand, type CompletedOption, markedStarts, quoted } from './model.ts';

/** @returns the whole script: the file `_ocicrypt-kms` of a folder of fpath, or what `source` reads */
export function zshScript(commands: readonly CompletedCommand[]): string {
  return `#compdef ocicrypt-kms
# zsh completion for ocicrypt-kms, made by: ocicrypt-kms completion zsh

# Adds what continues the word: each argument is a start, and %d, %f or %w what follows it.
_ocicrypt_kms_values() {
  local form start
  local -a whole open
  for form; do
    start=\${form%\\%[dfw]}
    # After a start that ends in a slash stands a whole path.
    if [[ $form == *%[df] && $PREFIX == \${(b)start}* ]] && compset -P "\${(b)start%/}"; then
      [[ $form == *%d ]] && _files -/ || _files
      return
    fi
    [[ -z $start ]] && continue
    [[ $form == *%w ]] && whole+=("$start") || open+=("$start")
  done
  (( $#whole )) && compadd -a whole
  (( $#open )) && compadd -S '' -a open
}

_ocicrypt-kms() {
  local curcontext=$curcontext state line
  local -a commands
  _arguments -C ':command:->command' '*::argument:->argument'
  case $state in
    command)
      commands=(
${commands.map(({ name, describe }) => `        ${quoted(`${name}:${describe}`)}`).join('\n')}
      )
      _describe -t commands command commands
      ;;
    argument)
      case $words[1] in
${commands.map(commandCase).join('\n')}
      esac
      ;;
  esac
}

if [[ $funcstack[1] == _ocicrypt-kms ]]; then
  _ocicrypt-kms "$@"
else
  compdef _ocicrypt-kms ocicrypt-kms
fi
`;
}

function commandCase({ name, operands, options }: CompletedCommand): string {
  const specs = [
    ...options.map(optionSpecification),
    ...operands.map(({ title, starts, isRepeated }, index) => {
      const place = isRepeated ? '*' : String(index + 1);
      return `${place}:${escapeColons(title)}:${action(starts)}`;
    }),
  ];
  return `        ${name})
          _arguments \\
${specs.map((spec) => `            ${quoted(spec)}`).join(' \\\n')}
          ;;`;
}

function optionSpecification({ name, describe, value, isRepeatable, starts }: CompletedOption): string {
  const text = `[${describe.replaceAll(/[[\]\\:]/g, '\\$&')}]`;
  if (value === undefined) return `--${name}${text}`;
  return `${isRepeatable ? '*' : ''}--${name}=${text}:${escapeColons(value)}:${action(starts)}`;
}

/** The space before it says that it is called with these words alone. */
function action(starts: readonly Start[]): string {
  return starts.length === 0 ? ' ' : ` _ocicrypt_kms_values ${escapeColons(markedStarts(starts).join(' '))}`;
}

function escapeColons(text: string): string {
  return text.replaceAll(':', '\\:');
}
