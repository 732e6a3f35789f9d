#!/usr/bin/env bash
# Lets bash, fish and zsh themselves complete some lines, as after the TAB of somebody at a terminal.
set -euo pipefail
cd "$(dirname "$0")/../../packaging/completions"

missing=()
for shell in fish zsh; do command -v "$shell" >/dev/null || missing+=("$shell"); done
if ((${#missing[@]})); then
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "missing, and not to be installed without root and apt-get: ${missing[*]}"
        exit 77
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Each prints what is offered behind a line.
in_bash() {
    bash -c 'source bash/agent; read -ra COMP_WORDS <<<"$1"; [[ $1 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _agent agent "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf "%s\n" "${COMPREPLY[@]}"' -- "$1"
}
in_fish() { fish --no-config -c 'source fish/agent.fish; complete -C $argv[1]' -- "$1"; }
# It lists only at a terminal; what it inserts is read off there.
in_zsh() {
    zsh -f -c 'zmodload zsh/zpty; zpty shell "TERM=dumb zsh -f -i"
        zpty -w shell "PS1=; fpath=($PWD/zsh \$fpath); autoload -U compinit; compinit -u -D; LISTMAX=0; echo be''gun"
        zpty -r -m shell seen "*begun*"
        zpty -w -n shell "$1"$'"'\t\t'"'; sleep 1; zpty -w -n shell $'"'\x15echo o''ver\n'"'
        zpty -r -m shell seen "*over*"; print -r -- $seen; zpty -d shell' -- "$1"
}

failed=0
# offers SHELL LINE WORD, and ! before WORD for what must not be offered
offers() {
    local said
    said=$("in_$1" "$2" 2>&1) || true
    if [[ $3 == !* ]]; then [[ $said != *"${3#!}"* ]]; else [[ $said == *"$3"* ]]; fi || {
        echo "$1, behind '$2': $3 is wrong in: $said"
        failed=1
    }
}
for shell in bash fish zsh; do
    offers $shell 'agent sta' status
    offers $shell 'agent --dry' --dry-run
    offers $shell 'agent locate --all' --all-handoffs
    offers $shell 'agent ring container.builder reb' rebalance
    offers $shell 'agent ring ' '!rebalance'
    offers $shell 'agent check --' --config
    offers $shell 'agent check --' '!--probe'
done
((failed)) || echo "bash, fish and zsh complete what they should"
exit $failed
