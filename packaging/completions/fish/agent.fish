# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_agent_global_optspecs
    string join \n config= o/once d/devices= p/partitions= dry-run json v/verbose q/quiet h/help V/version
end

function __fish_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_agent_using_subcommand
    set -l cmd (__fish_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c agent -n "__fish_agent_needs_command" -l config -d 'Conf file, or a directory of fragments [default: /etc/swift/container-server.conf]' -r -F
complete -c agent -n "__fish_agent_needs_command" -s d -l devices -d 'With --once: only these devices, as in sdb1,sdb2' -r
complete -c agent -n "__fish_agent_needs_command" -s p -l partitions -d 'With --once: only these partitions, as in 17,1029' -r
complete -c agent -n "__fish_agent_needs_command" -s o -l once -d 'Make one pass as a client, then exit'
complete -c agent -n "__fish_agent_needs_command" -l dry-run -d 'Make one pass that only says what it would do'
complete -c agent -n "__fish_agent_needs_command" -l json -d 'Print what the pass counted as one JSON object'
complete -c agent -n "__fish_agent_needs_command" -s v -l verbose -d 'Log everything, to standard error'
complete -c agent -n "__fish_agent_needs_command" -s q -l quiet -d 'Log warnings and errors only; no progress, no table'
complete -c agent -n "__fish_agent_needs_command" -s h -l help -d 'Print help'
complete -c agent -n "__fish_agent_needs_command" -s V -l version -d 'Print version'
complete -c agent -n "__fish_agent_needs_command" -f -a "demo" -d 'Drive a cluster of loopback nodes through its whole life'
complete -c agent -n "__fish_agent_needs_command" -f -a "check" -d 'See whether conf, rings, drives, peers and machine are in order'
complete -c agent -n "__fish_agent_needs_command" -f -a "info" -d 'Describe one database, and what a pass would do with it'
complete -c agent -n "__fish_agent_needs_command" -f -a "locate" -d 'Find where an account, container or object belongs, and who has it'
complete -c agent -n "__fish_agent_needs_command" -f -a "status" -d 'Say how this node is doing: in sync, since when, and if not, why'
complete -c agent -n "__fish_agent_needs_command" -f -a "ring" -d 'Make, change and show a ring, with swift-ring-builder\'s commands'
complete -c agent -n "__fish_agent_using_subcommand demo" -l keep -d 'Build it here and leave it, not in a temporary directory' -r -F
complete -c agent -n "__fish_agent_using_subcommand demo" -s h -l help -d 'Print help'
complete -c agent -n "__fish_agent_using_subcommand check" -l config -d 'Conf file, or a directory of fragments [default: /etc/swift/container-server.conf]' -r -F
complete -c agent -n "__fish_agent_using_subcommand check" -l json -d 'Print one JSON object'
complete -c agent -n "__fish_agent_using_subcommand check" -s h -l help -d 'Print help'
complete -c agent -n "__fish_agent_using_subcommand info" -l config -d 'Conf file, or a directory of fragments [default: /etc/swift/container-server.conf]' -r -F
complete -c agent -n "__fish_agent_using_subcommand info" -l json -d 'Print one JSON object'
complete -c agent -n "__fish_agent_using_subcommand info" -s h -l help -d 'Print help'
complete -c agent -n "__fish_agent_using_subcommand locate" -l config -d 'Conf file, or a directory of fragments [default: /etc/swift/container-server.conf]' -r -F
complete -c agent -n "__fish_agent_using_subcommand locate" -l ring -d 'Use this ring file; others are looked for beside it' -r -F
complete -c agent -n "__fish_agent_using_subcommand locate" -l policy -d 'Storage policy of the object [default: the container\'s]' -r
complete -c agent -n "__fish_agent_using_subcommand locate" -s a -l all-handoffs -d 'All handoffs, not only as many as there are primaries'
complete -c agent -n "__fish_agent_using_subcommand locate" -l json -d 'Print one JSON object'
complete -c agent -n "__fish_agent_using_subcommand locate" -s h -l help -d 'Print help'
complete -c agent -n "__fish_agent_using_subcommand status" -l config -d 'Conf file, or a directory of fragments [default: /etc/swift/container-server.conf]' -r -F
complete -c agent -n "__fish_agent_using_subcommand status" -l json -d 'Print one JSON object'
complete -c agent -n "__fish_agent_using_subcommand status" -s h -l help -d 'Print help'
complete -c agent -n "__fish_agent_using_subcommand ring" -s h -l help -d 'Print help'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a create -d 'Makes a builder of 2^<part_power> partitions, each with <replicas> replicas'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a add -d 'Adds devices'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a search -d 'Shows the devices that match'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a list_parts -d 'Lists the partitions of the devices that match, and how many of their replicas are there, most first'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a set_weight -d 'Gives devices another weight; with 0 they are drained'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a set_region -d 'Puts devices into another region'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a set_zone -d 'Puts devices into another zone'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a set_info -d 'Changes what has no part in placing replicas'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a remove -d 'Marks devices for removal by the next rebalance: for devices that failed'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a rebalance -d 'Moves what should be elsewhere and has not been moved for min_part_hours; writes builder and ring, and dated backups of both'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a validate -d 'Checks that every replica has a device of its own'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a dispersion -d 'Says how well replicas are spread over regions, zones, servers and devices; with -v tier by tier'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a version -d 'Says which format the ring file has, and of which state of the builder it is'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a set_replicas -d 'Changes how many replicas a partition has; 2.5 means that every other one has a third'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a set_overload -d 'Lets devices hold more than their weight says where this spreads replicas better: 0.1 or 10% means a tenth more'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a set_min_part_hours -d 'Changes for how long a partition that was moved stays where it is'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a pretend_min_part_hours_passed -d 'Lets the next rebalance move any partition'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a write_ring -d 'Writes the ring file anew, and a dated backup of it: after set_info, or if it was lost'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a write_builder -d 'Makes a builder from a ring, if all backups of the builder are lost'
complete -c agent -n "__fish_agent_using_subcommand ring; and test (count (commandline -opc)) -eq 3" -f -a show -d 'Shows which device holds which replica of which partition, as a table or as a picture'
