# Written by conf/manual-update from the commands' own --help.
_penstock()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= files=

    case $COMP_CWORD:${COMP_WORDS[1]} in
    1:*) words="run check parse replay dead spool dcr reload status top version help" ;;
    *:run)
        case $prev in
        -c|--config) compopt -o default; return ;;
        esac
        [ "${cur:0:1}" = - ] && words="--config --help"
        ;;
    *:check)
        case $prev in
        -c|--config) compopt -o default; return ;;
        esac
        [ "${cur:0:1}" = - ] && words="--config --online --send-test-record --help"
        ;;
    *:parse)
        case $prev in
        -d|--plugin-dir) compopt -o dirnames; return ;;
        -p|--parser|-s|--schema) return ;;
        -r|--record-max) return ;;
        esac
        [ "${cur:0:1}" = - ] && words="--parser --schema --record-max --plugin-dir --stats --help"
        files=yes
        ;;
    *:replay)
        case $prev in
        -c|--config) compopt -o default; return ;;
        --parser|--sink) return ;;
        --rate) return ;;
        --late) return ;;
        --from|--to) return ;;
        esac
        [ "${cur:0:1}" = - ] && words="--config --from --to --late --rate --parser --sink --dry-run --anew --help"
        files=yes
        ;;
    *:dead)
        case $prev in
        --state-dir) compopt -o dirnames; return ;;
        -c|--config) compopt -o default; return ;;
        esac
        [ "$COMP_CWORD" = 2 ] && words="list show resend drop"
        [ "${cur:0:1}" = - ] && words="--config --state-dir --json --all --yes --help"
        ;;
    *:spool)
        case $prev in
        --state-dir) compopt -o dirnames; return ;;
        -c|--config|--output) compopt -o default; return ;;
        esac
        [ "$COMP_CWORD" = 2 ] && words="list check export drop adopt"
        [ "${cur:0:1}" = - ] && words="--config --state-dir --json --output --yes --help"
        ;;
    *:dcr)
        case $prev in
        -c|--config) compopt -o default; return ;;
        --principal) return ;;
        --sink) return ;;
        esac
        [ "${cur:0:1}" = - ] && words="--config --sink --bicep --principal --help"
        ;;
    *:reload)
        case $prev in
        -c|--config) compopt -o default; return ;;
        esac
        [ "${cur:0:1}" = - ] && words="--config --help"
        ;;
    *:status)
        case $prev in
        -c|--config) compopt -o default; return ;;
        esac
        [ "${cur:0:1}" = - ] && words="--config --json --help"
        ;;
    *:top)
        case $prev in
        -c|--config) compopt -o default; return ;;
        esac
        [ "${cur:0:1}" = - ] && words="--config --help"
        ;;
    *:version)
        ;;
    *:help)
        words="run check parse replay dead spool dcr reload status top version"
        ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    [ -z "$files" ] || compopt -o default
}
complete -F _penstock penstock
