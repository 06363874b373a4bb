// The script by which bash completes our commands; for bash 3.2, which macOS has, and later ones.

import { type CompletedCommand, distinctOptions, markedStarts, quoted, valueOptions } from './model.ts';

/** @returns the whole script */
export function bashScript(commands: readonly CompletedCommand[]): string {
  return `# bash completion for ocicrypt-kms, made by: ocicrypt-kms completion bash

# Adds what continues $current to COMPREPLY: each word is a start, and %d, %f or %w what follows it.
_ocicrypt_kms_values() {
  local form start root path
  for form in "$@"; do
    start=\${form%%%[dfw]}
    if [[ $form == *%[df] && $current == "$start"* ]]; then
      # After a start that ends in a slash stands a whole path.
      root=; [[ $start == */ ]] && root=/
      while IFS= read -r path; do
        [[ -n $path ]] || continue
        if [[ -d \${path/#~\\//$HOME/} ]]; then _ocicrypt_kms_reply "$start\${path#"$root"}/"
        elif [[ $form == *%f ]]; then _ocicrypt_kms_reply "$start\${path#"$root"}" ' '
        fi
      done <<< "$(compgen -f -- "$root\${current:\${#start}}")"
    elif [[ -n $start && $start == "$current"* ]]; then
      [[ $form == *%w ]] && _ocicrypt_kms_reply "$start" ' ' || _ocicrypt_kms_reply "$start"
    fi
  done
}

# Adds one word and what ends it. Readline replaces only what follows the last of its word breaks.
_ocicrypt_kms_reply() {
  local text=$lead$1 word=
  text=\${text:\${#dropped}}
  [[ -n $text ]] && printf -v word %q "$text"
  [[ $text == '~/'* ]] && word=\${word#\\\\}
  COMPREPLY+=("$word$2")
}

_ocicrypt_kms_option() {
  case $1 in
${optionCases(commands)}
  esac
}

_ocicrypt_kms() {
  local line=\${COMP_LINE:0:COMP_POINT} current= lead= dropped= command= awaited= ended= operand=0 word mark
  local -a words
  COMPREPLY=()
  # Without -r, so that escaped blanks are part of words.
  read -a words <<< "$line"
  if [[ $line != *[[:space:]] || $line == *\\\\[[:space:]] ]]; then
    current=\${words[\${#words[@]} - 1]}
    unset "words[\${#words[@]} - 1]"
    [[ $line == *\\\\[[:space:]] && $current != *[[:space:]] ]] && current+=' '
  fi
  [[ $current == *[\\'\\"]* ]] && return
  for mark in : = @; do
    [[ $COMP_WORDBREAKS == *$mark* && $current == *$mark* ]] || continue
    word=\${current%"\${current##*$mark}"}
    ((\${#word} > \${#dropped})) && dropped=$word
  done
  for word in "\${words[@]:1}"; do
    if [[ -n $awaited ]]; then awaited=
    elif [[ -z $command ]]; then command=$word
    elif [[ -n $ended ]]; then ((operand++))
    elif [[ $word == -- ]]; then ended=1
    elif [[ $word == -*=* ]]; then continue
    elif [[ $word == -* ]]; then
      case \${word#--} in
        ${valueOptions(commands).join('|')}) awaited=\${word#--} ;;
      esac
    else ((operand++))
    fi
  done
  if [[ -z $command ]]; then
    _ocicrypt_kms_values ${commands.map(({ name }) => `${name}%w`).join(' ')}
  elif [[ -n $awaited ]]; then
    _ocicrypt_kms_option "$awaited"
  elif [[ -z $ended && $current == --*=* ]]; then
    word=\${current%%=*}
    lead=$word=
    current=\${current#*=}
    _ocicrypt_kms_option "\${word#--}"
  elif [[ -z $ended && $current == -* ]]; then
    case $command in
${commands
  .filter(({ options }) => options.length > 0)
  .map(optionNames)
  .join('\n')}
    esac
  else
    case $command:$operand in
${commands.flatMap(operandCases).join('\n')}
    esac
  fi
}

complete -o nospace -F _ocicrypt_kms ocicrypt-kms
`;
}

function optionCases(commands: readonly CompletedCommand[]): string {
  const alike = Map.groupBy(distinctOptions(commands), ({ option }) => words(markedStarts(option.starts)));
  alike.delete('');
  return [...alike]
    .map(
      ([values, group]) => `    ${group.map(({ option }) => option.name).join('|')}) _ocicrypt_kms_values ${values} ;;`,
    )
    .join('\n');
}

function optionNames({ name, options }: CompletedCommand): string {
  const names = options.map((option) => `--${option.name}${option.value === undefined ? '%w' : '='}`);
  return `      ${name}) _ocicrypt_kms_values ${names.join(' ')} ;;`;
}

function operandCases({ name, operands }: CompletedCommand): readonly string[] {
  return operands.map(({ starts, isRepeated }, index) => {
    const place = isRepeated ? '*' : index;
    return `      ${name}:${place}) _ocicrypt_kms_values ${words(markedStarts(starts))} ;;`;
  });
}

function words(texts: readonly string[]): string {
  return texts.map((text) => (/^[\w:/=%.-]+$/.test(text) ? text : quoted(text))).join(' ');
}
