package ZoneMesh::Bench::Cluster;

# Nodes of a cluster on this machine, and a part of docs/benchmarks.md that was measured with them.

use strict;
use warnings;

use Exporter qw(import);
use Time::HiRes qw(sleep time);

use ZoneMesh::Bench::Report;
use ZoneMesh::Bench::Turns;
use ZoneMesh::Node;

our @EXPORT = qw(cluster end_cluster measure);

my @nodes;

# Connected nodes with one worker each, each with these lines in http. measured: where the turns of the worker are noted; the
# rest is for ZoneMesh::Node.
sub cluster {
    my ($count, $http, %more) = @_;
    my @ports = map { [ free_port(), free_port() ] } 1 .. $count;
    my $peers = join ' ', map { "zone_sync_server 127.0.0.1:$_->[1];" } @ports;
    my @made = map {
        my $node = ZoneMesh::Node->new(
            name => "node$_", workers => 1, port => $ports[ $_ - 1 ][0], sync => $ports[ $_ - 1 ][1],
            stream => "server { listen 127.0.0.1:%%SYNC%%; zone_sync; $peers }",
            http   => "keepalive_requests 1000000000; $http", %more,
        );
        $node->write_file('page', "a page\n");
        $more{measured} ? ZoneMesh::Bench::Turns::measured($node, $more{measured}, $node->write_file('turns', '')) : $node->start;
    } 1 .. $count;
    push @nodes, @made;
    for my $node (@made) {
        my $until = time + 10;
        sleep 0.02 until $node->get('/api/9/stream/zone_sync')->json->{status}{nodes_online} == $count - 1 || time > $until;
    }
    return @made;
}

# Stops all that were made.
sub end_cluster {
    $_->stop for splice @nodes;
    return;
}

# Calls each of $parts, which gives pieces of text, and writes them under a title.
sub measure {
    my ($name, $title, $parts, %given) = @_;
    my ($began, $load) = (time, busy());
    my @all = eval { map { $_->(%given) } @$parts };
    my $failed = $@;
    end_cluster();
    die $failed if $failed;
    my $machine = circumstances(load => $load, versions => revision(), command => $given{command}, began => $began);
    my $text = "$machine\n" . join "\n", @all;
    print $text;
    publish($name => $title, $text) unless $given{dry};
    return;
}

1;
