package ZoneMesh::Bench::Sync;

# `scripts/bench sync`: replication between servers on loopback, zonemesh over mutual TLS beside HAProxy's peers and Redis
# without it. Writes its part of docs/benchmarks.md.

use strict;
use warnings;

use JSON::PP ();
use Time::HiRes qw(sleep time);

use ZoneMesh ();
use ZoneMesh::Bench::Report;
use ZoneMesh::Bench::Sync::Haproxy;
use ZoneMesh::Bench::Sync::Redis;
use ZoneMesh::Bench::Sync::Zonemesh;

my @SYSTEMS = map { "ZoneMesh::Bench::Sync::$_" } qw(Zonemesh Haproxy Redis);
my %LABEL   = (zonemesh => 'zonemesh, mutual TLS', haproxy => 'HAProxy, plain', redis => 'Redis, plain');
our $driver;

sub run {
    my (%given) = @_;
    alone(%given);
    $driver = driver();
    my %size = $given{quick}
        ? (rounds => 2, turns => 2, updates => 200, bulk => 100_000, joins => [100_000], join_rounds => 1, idle => 2)
        : (rounds => 7, turns => 15, updates => 500, bulk => 1_000_000, joins => [ 100_000, 1_000_000 ], join_rounds => 5, idle => 20);
    my ($began, $before) = (time, busy());
    my ($latency, $idle) = latency(%size);
    my $bulk = bulk(%size);
    my $join = joins(%size);
    my $machine = circumstances(
        load => $before, versions => join(', ', map { $_->version } @SYSTEMS), command => $given{command}, began => $began,
    );
    my $page = page(\%size, $machine, $latency, $idle, $bulk, $join);
    print $page;
    return if $given{dry};
    write_file('docs/benchmarks-sync.svg', chart($latency, $bulk, $join));
    publish(sync => 'Replication', $page);
    return;
}

# Bytes on the wire are those of the loopback device, so it has to be ours: a network namespace that ends with this.
sub alone {
    my (%given) = @_;
    return if $ENV{ZONEMESH_BENCH_ALONE};
    die "$given{command} counts what goes over a loopback device of its own, and needs root to make it\n" if $>;
    local $ENV{ZONEMESH_BENCH_ALONE} = 1;
    exec qw(unshare -n sh -c), 'ip link set lo up && exec "$@"', 'sh', split ' ', $given{command} or die "unshare: $!\n";
}

# The program of benches/sync, built.
sub driver {
    my $said = qx(cargo bench --locked --no-default-features --bench sync --no-run 2>&1);
    my ($path) = $said =~ /Executable .*\((\S+)\)/ or die "cargo bench --no-run said:\n$said";
    return $path;
}

sub drive {
    my @command = ($driver, @_);
    my $said = qx(@command);
    die "@command failed\n" if $?;
    return JSON::PP->new->decode($said);
}

# Servers 1 to `count` of a system, which have seen each other: a record of one is on all.
sub up {
    my ($class, $count, $of) = @_;
    my $system = $class->new($of // $count);
    $system->start($_) for 1 .. $count;
    drive('await', $system->name, $system->place(1), 0);
    drive('fill',  $system->name, $system->place(1), 1);
    drive('await', $system->name, $system->place($_), 1) for 2 .. $count;
    return $system;
}

sub down { my ($system, $count) = @_; $system->stop($_) for 1 .. $count; return }

# ({name => {latency => {p50 => [...], p99 => [...]}, requests => {...}}}, {name => [share of a core that each server takes with nothing to do]})
sub latency {
    my (%size) = @_;
    print STDERR "bench: single updates\n";
    my @systems = map { up($_, 2) } @SYSTEMS;
    my (%out, %idle);
    for my $turn (0 .. $size{turns}) {
        for my $system (@systems) {
            for my $what (qw(latency requests)) {
                my @samples = sort { $a <=> $b } @{ drive($what, $system->name, $system->place(1), $system->place(2), $size{updates})->{samples} };
                next unless $turn;    # the first is for the caches
                push @{ $out{ $system->name }{$what}{p50} }, $samples[ @samples * 0.5 ];
                push @{ $out{ $system->name }{$what}{p99} }, $samples[ @samples * 0.99 ];
            }
        }
    }
    print STDERR "bench: nothing to do\n";
    sleep 2;
    my @before = map { my $system = $_; [ map { cpu($system->pids($_)) } 1, 2 ] } @systems;
    sleep $size{idle};
    for my $i (0 .. $#systems) {
        push @{ $idle{ $systems[$i]->name } }, (cpu($systems[$i]->pids($_)) - $before[$i][ $_ - 1 ]) / 1e9 / $size{idle} for 1, 2;
    }
    down($_, 2) for @systems;
    return (\%out, \%idle);
}

# {name => {rate => [...], source => [...], from => [us of processor time a record], to => [...]}}
sub bulk {
    my (%size) = @_;
    print STDERR "bench: many records\n";
    my %out;
    for my $round (1 .. $size{rounds}) {
        for my $class (@SYSTEMS) {
            my $system = up($class, 2);
            my @before = map { cpu($system->pids($_)) } 1, 2;
            my $said   = drive('bulk', $system->name, $system->place(1), $system->place(2), $size{bulk});
            my @cpu    = map { (cpu($system->pids($_)) - $before[ $_ - 1 ]) / 1000 / $size{bulk} } 1, 2;
            my $of     = $out{ $system->name } //= {};
            push @{ $of->{rate} },   $size{bulk} / $said->{everywhere};
            push @{ $of->{source} }, $size{bulk} / $said->{source};
            push @{ $of->{from} },   $cpu[0];
            push @{ $of->{to} },     $cpu[1];
            down($system, 2);
        }
    }
    return \%out;
}

# {records => {nodes => {name => {seconds => [...], bytes => [a record]}}}}: an empty server joins the others.
sub joins {
    my (%size) = @_;
    my %out;
    for my $records (@{ $size{joins} }) {
        for my $nodes (2, 5) {
            print STDERR "bench: the last of $nodes joins with $records records\n";
            # A replica of Redis has one master, however many there are.
            my @ready = map { [ $_, ready($_, $nodes, $records) ] } $nodes == 2 ? @SYSTEMS : @SYSTEMS[ 0, 1 ];
            for my $round (1 .. $size{join_rounds}) {
                for my $one (@ready) {
                    my ($class, $system) = @$one;
                    my $of = $out{$records}{$nodes}{ $system->name } //= {};
                    my ($bytes, $began) = (wire(), time);
                    $system->start($nodes);
                    drive('await', $system->name, $system->place($nodes), $records);
                    push @{ $of->{seconds} }, time - $began;
                    push @{ $of->{bytes} },   (wire() - $bytes) / $records;
                    $system->stop($nodes);
                }
            }
            down($_->[1], $nodes - 1) for @ready;
        }
    }
    return \%out;
}

# All servers but the last, with these records.
sub ready {
    my ($class, $nodes, $records) = @_;
    my $system = up($class, $nodes - 1, $nodes);
    drive('fill', $system->name, $system->place(1), $records);
    drive('await', $system->name, $system->place($_), $records) for 2 .. $nodes - 1;
    $system->settle($nodes - 1) if $system->can('settle');
    return $system;
}

# Nanoseconds of processor time of all threads of these processes.
sub cpu {
    my $sum = 0;
    $sum += (split ' ', slurp($_))[0] // 0 for map { glob "/proc/$_/task/*/schedstat" } @_;
    return $sum;
}

# Bytes that went over the loopback device, with all headers.
sub wire { my ($bytes) = slurp('/proc/net/dev') =~ /^\s*lo:\s*(\d+)/m; return $bytes }

sub page {
    my ($size, $machine, $latency, $idle, $bulk, $join) = @_;
    my @names = qw(zonemesh haproxy redis);
    my $out   = $machine;
    $out .= "\nAll servers are on this machine and share its cores with the program that drives them. zonemesh: nginx with one worker, mutual TLS,\n"
        . "every default (so TLS 1.2, as streams of nginx 1.22 have it). HAProxy: peers, one thread, a stick table whose records are of the same size. Redis: master and replicas, nothing on\n"
        . "disk, no waiting for other replicas. Keys and values have 16 bytes; those of zonemesh and HAProxy end after an hour. All take commands over\n"
        . "a Unix socket, and replicate over TCP.\n\n"
        . "![replication](benchmarks-sync.svg)\n";

    $out .= "\n### Single updates\n\nMicroseconds from the first byte of a write to one server until a read on the other shows it; after each a pause of 1 to 2 ms.\n"
        . "$size->{turns} turns of $size->{updates} updates. Below, the part of that which has nothing to do with replication: the same write, and one read on the\n"
        . "other server, whatever it shows. All ratios are to what HAProxy's updates take.\n\n"
        . row('', '', 'p50, us', 'p99, us', "p50, times HAProxy's", "p99, times HAProxy's") . row(('---') x 6);
    for my $what ([ latency => 'update' ], [ requests => 'write and read alone' ]) {
        for my $name (@names) {
            my $of = $latency->{$name}{ $what->[0] };
            $out .= row($what->[1], $LABEL{$name}, (map { with_spread($of->{$_}) } qw(p50 p99)), map { with_spread([ ratio($of->{$_}, $latency->{haproxy}{latency}{$_}) ]) } qw(p50 p99));
        }
    }
    $out .= row('to reach', 'zonemesh', '', '', '0.8', '1.0');

    $out .= "\n### Many records\n\n$size->{bulk} records as fast as one server takes them (an import of lines of JSON by the API; commands on HAProxy's socket; SET, pipelined),\n"
        . "until the other has all of them.\n\n"
        . row('', 'records/s, on both', 'records/s, on the first', "times Redis's", 'processor time of the first, us a record', 'of the other') . row(('---') x 6);
    for my $name (@names) {
        my $of = $bulk->{$name};
        $out .= row($LABEL{$name}, (map { with_spread($of->{$_}) } qw(rate source)), with_spread([ ratio($of->{rate}, $bulk->{redis}{rate}) ]), map { with_spread($of->{$_}) } qw(from to));
    }
    $out .= row('to reach', '', '', '1.0', '', '');

    $out .= "\n### An empty server joins\n\nSeconds from starting the program until it has all records, and bytes on the wire with all headers. The others have run before, and are connected. Redis always has one master and one replica: rows of 5 servers are divided by that time, too.\n\n"
        . row('records', 'servers', '', 'seconds', "times Redis's", 'bytes a record') . row(('---') x 6);
    for my $records (sort { $a <=> $b } keys %$join) {
        for my $nodes (sort keys %{ $join->{$records} }) {
            my $at = $join->{$records}{$nodes};
            for my $name (grep { $at->{$_} } @names) {
                my $of = $at->{$name};
                $out .= row($records, $nodes, $LABEL{$name}, with_spread($of->{seconds}), with_spread([ ratio($of->{seconds}, $join->{$records}{2}{redis}{seconds}) ]), with_spread($of->{bytes}));
            }
        }
    }
    $out .= row('to reach', '', 'zonemesh', '', '0.9', '1.2 times those of 2 servers');

    $out .= "\n### Nothing to do\n\nPer cent of a core that a server takes, over $size->{idle} s; zonemesh's is to stay below 0.1.\n\n" . row('', '%') . row('---', '---');
    $out .= row($LABEL{$_}, join ' and ', map { sprintf '%.3f', 100 * $_ } @{ $idle->{$_} }) for @names;
    my $said = slurp('benches/notes-sync.md');
    return $said ? "$out\n$said" : $out;
}

sub chart {
    my ($latency, $bulk, $join) = @_;
    my $bar = sub {
        my ($name, $samples, $scale) = @_;
        return [ $name eq 'zonemesh' ? 'zonemesh (its zone over mutual TLS)' : $LABEL{$name}, map { $_ * $scale } median(@$samples), map { ZoneMesh::Bench::Report::quantile($_, @$samples) } 0.25, 0.75 ];
    };
    my @names = qw(zonemesh haproxy redis);
    my ($most) = sort { $b <=> $a } keys %$join;
    return bars(
        'Replication', 'us; us; ms; less is better',
        [ 'a single update is visible, p50, us', map { $bar->($_, $latency->{$_}{latency}{p50}, 1) } @names ],
        [ 'a single update is visible, p99, us', map { $bar->($_, $latency->{$_}{latency}{p99}, 1) } @names ],
        [ "$most records joined, ms", map { $bar->($_, $join->{$most}{2}{$_}{seconds}, 1000) } @names ],
    );
}

1;
