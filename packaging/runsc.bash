# bash completion for runsc
_runsc()
{
    local cur=${COMP_WORDS[COMP_CWORD]} word command= root= i

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        --root) root=${COMP_WORDS[++i]} ;;
        --root=*) root=${word#*=} ;;
        --host-fifo | --host-uds | --log | --log-format | --network | --overlay | --platform | --systrap-patch | --rootless) ((i++)) ;;
        -*) ;;
        *)
            command=$word
            break
            ;;
        esac
    done
    if [[ -z $command ]]; then
        COMPREPLY=($(compgen -W "$(runsc help 2>/dev/null |
            sed -n 's/^  \([a-z-]*\) .*/\1/p; s/^  \(--[a-z-]*\).*/\1/p')" -- "$cur"))
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$(runsc help "$command" 2>/dev/null |
            grep -o -- '--[a-z-]*' | sort -u)" -- "$cur"))
    else
        case $command in
        create | run | do | spec | install | uninstall) COMPREPLY=($(compgen -f -- "$cur")) ;;
        *) COMPREPLY=($(compgen -W "$(runsc ${root:+--root "$root"} list --quiet 2>/dev/null)" -- "$cur")) ;;
        esac
    fi
}
complete -F _runsc runsc
