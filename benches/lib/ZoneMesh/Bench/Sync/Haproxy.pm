package ZoneMesh::Bench::Sync::Haproxy;

# HAProxy's peers: a stick table with as many bytes a record as the others, without TLS.

use strict;
use warnings;

use parent -norequire, 'ZoneMesh::Bench::Sync::Processes';

use ZoneMesh::Bench::Sync::Processes;
use ZoneMesh::Node ();

sub name { return 'haproxy' }

sub prepare {
    my ($self) = @_;
    my $peers = join '', map { "    peer n$_ 127.0.0.1:$self->{ports}[$_]\n" } 1 .. $self->{count};
    for my $n (1 .. $self->{count}) {
        open my $file, '>', "$self->{folder}/$n.cfg" or die "$n.cfg: $!\n";
        print {$file} <<"CONF";
global
    nbthread 1
    stats socket $self->{folder}/$n.sock level admin
    stats timeout 10m
defaults
    timeout connect 5s
    timeout client 10m
    timeout server 10m
peers mesh
$peers
backend one
    stick-table type string len 17 size 1200k expire 1h store gpc0,gpc1,gpt0,conn_cnt peers mesh
CONF
        close $file or die "$n.cfg: $!\n";
    }
    return;
}

sub program { return (grep { -x } qw(/usr/sbin/haproxy /usr/local/sbin/haproxy))[0] // 'haproxy' }

sub command { my ($self, $n) = @_; return (program(), '-db', '-f', "$self->{folder}/$n.cfg", '-L', "n$n") }

sub place { my ($self, $n) = @_; return "$self->{folder}/$n.sock" }

sub version { my ($version) = qx(@{[ program() ]} -v) =~ /version (\S+)/; return "haproxy $version" }

1;
