package ZoneMesh::Bench::Store;

# `scripts/bench store`: runs the comparison in process and nginx under load, and writes its part of docs/benchmarks.md.

use strict;
use warnings;

use JSON::PP ();

use ZoneMesh::Bench::Nginx;
use ZoneMesh::Bench::Report;

my @SIZES = (1000, 100_000, 1_000_000);
my %LABEL = (1000 => '1 k', 100_000 => '100 k', 1_000_000 => '1 M');

# What DESIGN's targets are, by size.
my %TARGET = (
    get        => [ 30, 60, 130 ], set        => [ 80, 150, 350 ],
    get_two    => [ 1.9, 1.9, 1.9 ], set_two  => [ 1.1, 1.4, 1.8 ],
    get_beside => [ 0.85, 0.85, 0.85 ], nginx => [ 0.98, 0.95, 0.92 ],
);
# The bare table's nanoseconds for a look-up where the targets for one process were set.
my @TARGET_BARE = (4, 20, 65);

sub run {
    my (%given) = @_;
    my @build = qw(cargo bench --locked --no-default-features --bench compare --no-run);
    system(@build) == 0 or die "@build failed\n";
    my $began  = time;
    my $load   = busy();
    my $table  = in_process($given{quick});
    my ($nginx, @notes) = under_load($given{quick});
    my $machine = circumstances(load => $load, versions => versions(), command => $given{command}, began => $began);
    my $page = page($table, $nginx, $machine, @notes);
    print $page;
    return if $given{dry};
    write_file('docs/benchmarks-store.svg', chart_store($table));
    write_file('docs/benchmarks-nginx.svg', chart_nginx($nginx));
    publish(store => 'The store', $page);
    return;
}

# {part => {keys => {name => [samples]}}}
sub in_process {
    my ($quick) = @_;
    print STDERR "bench: in process\n";
    my @program = qw(cargo bench --locked --no-default-features --bench compare -- --rounds);
    open my $out, '-|', @program, $quick ? qw(3 --millis 20 --prefixes 200000) : qw(15 --millis 40) or die "cargo: $!\n";
    my %table;
    while (my $line = <$out>) {
        next unless $line =~ /^\{/;
        my $said = JSON::PP->new->decode($line);
        $table{ $said->{part} }{ $said->{keys} }{ $said->{name} } = $said->{samples};
    }
    close $out or die "the comparison in process failed\n";
    return \%table;
}

# {variant => {rate => [...], cpu => [...]}}, and notes.
sub under_load {
    my ($quick) = @_;
    print STDERR "bench: nginx\n";
    my $nginx = ZoneMesh::Bench::Nginx->new(port => free_port(), seconds => $quick ? 1 : 2, prefixes => $quick ? 20_000 : 100_000);
    my %samples;
    for my $round (1 .. ($quick ? 2 : 7)) {
        for my $variant ($nginx->variants) {
            my ($rate, $cpu) = $nginx->load(@$variant);
            push @{ $samples{ $variant->[0] }{rate} }, $rate;
            push @{ $samples{ $variant->[0] }{cpu} },  $cpu;
        }
    }
    my @notes = $nginx->notes;
    $nginx->stop;
    return (\%samples, @notes);
}

sub page {
    my ($table, $nginx, $machine, @notes) = @_;
    my $sizes = $table->{table};
    my $out = "$machine\n### In process: one process\n\nNanoseconds of processor time for each operation, on records of 16 + 16 bytes with uniformly random keys, "
        . "choosing the key (@{[ figure(median(@{ $sizes->{1000}{keys} }))]}) included.\n"
        . "The zone is `timeout=1h sync`, of 104 bytes a key in whole MiB. The time of day comes from the caller. The bare table is the standard library's\n"
        . "`HashMap` in private memory with the zone's hash (SipHash-1-3 of the key, one shot).\n\n"
        . "![look-ups and writes in process](benchmarks-store.svg)\n\n"
        . row('operation', 'keys', 'zone, ns', 'bare table, ns', 'times the bare table', 'to reach, ns')
        . row(('---') x 6);
    for my $op ([ get => 'look-up, hit', 'get_private' ], [ miss => 'look-up, miss', 'miss_private' ], [ set => 'write', 'set_private' ]) {
        for my $i (0 .. $#SIZES) {
            my $at = $sizes->{ $SIZES[$i] } or next;
            my ($own, $bare) = @$at{ $op->[0], $op->[2] };
            $out .= row($op->[1], $LABEL{ $SIZES[$i] }, with_spread($own), with_spread($bare), with_spread([ ratio($own, $bare) ]), $TARGET{ $op->[0] } ? $TARGET{ $op->[0] }[$i] : '');
        }
    }
    $out .= "\nThe targets were set where the bare table of the same records, with a cheaper hash, took @TARGET_BARE ns a look-up.\n";

    $out .= "\n### In process: two processes\n\nBoth start together and loop; rates are in wall-clock time. The bare table is an open-addressing table in shared memory without any locks.\n\n"
        . row('what', 'keys', 'zone', 'bare table', 'to reach') . row(('---') x 5);
    for my $op (
        [ get_two => 'look-ups of two together, times one alone' ], [ set_two => 'writes of two together, times one alone' ],
        [ get_beside => 'look-ups beside a process that writes without pause, times undisturbed' ],
    ) {
        for my $i (0 .. $#SIZES) {
            my $at = $sizes->{ $SIZES[$i] } or next;
            my ($own, $bare) = @$at{ $op->[0], "$op->[0]_bare" };
            my $goal = $op->[0] eq 'get_beside' ? '0.85 of the bare table\'s' : $TARGET{ $op->[0] }[$i];
            $out .= row($op->[1], $LABEL{ $SIZES[$i] }, with_spread($own), with_spread($bare), $goal);
        }
    }

    $out .= "\n### Space\n\n" . row('zone', 'records of 16 + 16 bytes', 'bytes of the zone for each', 'to reach') . row(('---') x 4);
    for my $bytes (sort { $b <=> $a } keys %{ $table->{space} }) {
        my ($records) = @{ $table->{space}{$bytes}{records} };
        $out .= row(zone_label($bytes) . ' `timeout=1h sync`', $records, figure($bytes / ($records || 1)), $bytes > 1 << 20 ? '400 k' : '');
    }
    $out .= "\nOf as much memory. Of a `zone=name:size` nginx keeps a page and 24 bytes for each page itself: README.md tells what such a zone holds.\n";

    $out .= "\n### Through nginx\n\nOne worker, wrk with one thread and 16 connections kept alive, each on a core of its own; the key is an argument of the URI, uniformly\n"
        . "random. `return 200` of a variable that is looked up, against `return 200` of a constant. Lua: `set_by_lua_block` with `ngx.shared.DICT:get`.\n\n"
        . "![requests a second](benchmarks-nginx.svg)\n\n"
        . row('response', 'requests/s', 'times the constant', "worker's processor time per request, us", 'more than the constant, us', 'to reach') . row(('---') x 6);
    for my $name (variant_names($nginx)) {
        my ($own, $constant) = ($nginx->{$name}, $nginx->{constant});
        my @more = map { $own->{cpu}[$_] - $constant->{cpu}[$_] } 0 .. $#{ $own->{cpu} };
        my %place = ('1k' => 0, '100k' => 1, '1M' => 2);
        my $goal = $name =~ /^keyval (1k|100k|1M)$/ ? $TARGET{nginx}[ $place{$1} ] : '';
        $out .= row($name, with_spread($own->{rate}), with_spread([ ratio($own->{rate}, $constant->{rate}) ]), with_spread($own->{cpu}), $name eq 'constant' ? '' : figure(median(@more)), $goal);
    }
    if (my $ip = $table->{ip}) {
        $out .= "\n### Networks (type=ip)\n\nIn process, look-ups of addresses as text, mixed prefixes of IPv4 and IPv6. Through nginx, `geo` and `keyval ip` above know the same prefixes of IPv4.\n\n"
            . row('prefixes', 'what', 'ns') . row(('---') x 3);
        for my $count (sort { $a <=> $b } keys %$ip) {
            $out .= row($count, $_, with_spread($ip->{$count}{$_})) for sort keys %{ $ip->{$count} };
        }
    }
    $out .= join '', "\n", map { "$_.\n" } @notes if @notes;
    # What a profile says of the figures is written by hand.
    my $said = slurp('benches/notes-store.md');
    $out .= "\n$said" if $said;
    return $out;
}

sub chart_store {
    my ($table) = @_;
    my @groups;
    for my $op ([ get => 'look-up, hit' ], [ miss => 'look-up, miss' ], [ set => 'write' ]) {
        for my $keys (grep { $table->{table}{$_} } @SIZES) {
            my $at = $table->{table}{$keys};
            push @groups, [ "$op->[1], $LABEL{$keys} keys", bar('zone', $at->{ $op->[0] }), bar('bare table', $at->{"$op->[0]_private"}) ];
        }
    }
    return bars('Look-ups and writes in process', 'ns, less is better', @groups);
}

sub chart_nginx {
    my ($nginx) = @_;
    return bars('Requests through nginx, one worker', 'requests/s, more is better', [ '', map { bar($_, $nginx->{$_}{rate}) } variant_names($nginx) ]);
}

sub bar {
    my ($name, $samples) = @_;
    return [ $name, median(@$samples), map { ZoneMesh::Bench::Report::quantile($_, @$samples) } 0.25, 0.75 ];
}

sub variant_names {
    my ($nginx) = @_;
    return grep { $nginx->{$_} } 'constant', 'constant, counted by status_zone', (map { ("keyval $_", "lua $_") } qw(1k 100k 1M)), 'keyval ip', 'geo';
}

sub zone_label { my ($bytes) = @_; return $bytes >= 1 << 20 ? ($bytes >> 20) . ' MiB' : ($bytes >> 10) . ' KiB' }

sub versions {
    my ($wrk)   = qx(wrk -v 2>&1) =~ /wrk \S*?([\d.]+)/;
    my ($rustc) = qx(rustc -V) =~ /rustc (\S+)/;
    my ($lua)   = qx(dpkg-query -W -f '\${Version}' libnginx-mod-http-lua 2>/dev/null);
    return revision() . ", libnginx-mod-http-lua $lua, wrk $wrk, rustc $rustc";
}

1;
