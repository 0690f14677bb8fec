package ZoneMesh::Bench::Sync::Redis;

# Redis: the first server is the master, the others its replicas; nothing is kept on disk, no TLS.

use strict;
use warnings;

use parent -norequire, 'ZoneMesh::Bench::Sync::Processes';

use ZoneMesh::Bench::Sync::Processes;

sub name { return 'redis' }

sub command {
    my ($self, $n) = @_;
    # As it comes, but that a replica needn't wait 5 s for others that might want the same copy, and keeps no file of it: begun
    # again, it would read that file instead of joining.
    my @command = (
        'redis-server', '--port', $self->{ports}[$n], '--bind', '127.0.0.1', '--unixsocket', $self->place($n), '--dir', "$self->{folder}", '--dbfilename', "$n.rdb",
        '--save', '', '--appendonly', 'no', '--repl-diskless-sync-delay', '0',
        '--rdb-del-sync-files', 'yes',
    );
    push @command, '--replicaof', "127.0.0.1 $self->{ports}[1]" if $n > 1;
    return @command;
}

sub place { my ($self, $n) = @_; return "$self->{folder}/$n.sock" }

sub version { my ($version) = qx(redis-server --version) =~ /v=(\S+)/; return "redis $version" }

1;
