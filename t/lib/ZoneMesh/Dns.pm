package ZoneMesh::Dns;

# A real name server on loopback, Debian's dnsmasq, whose records a test changes.
#
#     my $dns = ZoneMesh::Dns->new->start;
#     $dns->set('mesh.test' => qw(127.0.0.11 127.0.0.12 ::1));    # all of its addresses; none: it doesn't exist
#
# Its names are those below .test, and below the domains that `new` is given. Answers are good for a second, or as many as `ttl` says. Services, for `service=`:
#
#     ZoneMesh::Dns->new->serve('_app._tcp.mesh.test', 'a.mesh.test', 8080)->start;

use strict;
use warnings;

use File::Temp ();
use IO::Socket::INET;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

use ZoneMesh ();
use ZoneMesh::Node;

# Where the program is, if it is installed.
sub program { return (grep { -x } map { "$_/dnsmasq" } qw(/usr/sbin /usr/local/sbin /usr/bin))[0] }

sub new {
    my ($class, @domains) = @_;
    my $folder = File::Temp->newdir('zonemesh-dns-XXXXXX', TMPDIR => 1);
    return bless { owner => $$, folder => $folder, port => ZoneMesh::port(), records => {}, ttl => 1, domains => [ 'test', @domains ] }, $class;
}

sub port { return $_[0]{port} }

sub start {
    my ($self) = @_;
    $self->write;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        ZoneMesh::Node::die_with_parent();
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>', "$self->{folder}/log";
        open STDERR, '>&', \*STDOUT;
        exec program(), qw(--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts), "--local-ttl=$self->{ttl}",
            (map { "--local=/$_/" } @{ $self->{domains} }), @{ $self->{services} // [] },
            '--user=' . getpwuid($>), '--pid-file', '--log-facility=-', "--port=$self->{port}", qw(--listen-address=127.0.0.1 --bind-interfaces),
            "--addn-hosts=$self->{folder}/hosts"
            or POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    my $up = ZoneMesh::wait_for(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}) && $self->times_read }, 5);
    die 'dnsmasq does not listen: ' . $self->log unless $up;
    return $self;
}

# Returns once the server answers so: who asks earlier would keep the old answer for as long as it believes it.
sub set {
    my ($self, $name, @addresses) = @_;
    $self->{records}{$name} = \@addresses;
    $self->write;
    return $self unless $self->{pid};
    my $before = $self->times_read;
    kill HUP => $self->{pid};
    ZoneMesh::wait_for(sub { $self->times_read > $before }, 20) or die 'dnsmasq does not read its names again: ' . $self->log;
    return $self;
}

# For how many seconds answers are good; before it starts.
sub ttl { my ($self, $seconds) = @_; $self->{ttl} = $seconds; return $self }

# Has a service on a host, at a port; before it starts.
sub serve {
    my ($self, $service, $host, $port) = @_;
    push @{ $self->{services} }, "--srv-host=$service,$host,$port";
    return $self;
}

# Stops answering, and goes on.
sub pause  { kill STOP => $_[0]{pid}; return }
sub resume { kill CONT => $_[0]{pid}; return }

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill KILL => $pid;
    waitpid $pid, 0;
    return;
}

# What it has said.
sub log {
    my ($self) = @_;
    open my $file, '<', "$self->{folder}/log" or return '';
    return do { local $/; <$file> };
}

# How often it has read the file of names.
sub times_read {
    my ($self) = @_;
    return scalar(() = $self->log =~ m{\bread \Q$self->{folder}\E/hosts\b}g);
}

sub write {
    my ($self) = @_;
    open my $file, '>', "$self->{folder}/hosts.new" or die "hosts: $!";
    for my $name (sort keys %{ $self->{records} }) {
        print {$file} "$_ $name\n" for @{ $self->{records}{$name} };
    }
    close $file or die "hosts: $!";
    chmod 0644, "$self->{folder}/hosts.new";
    rename "$self->{folder}/hosts.new", "$self->{folder}/hosts" or die "hosts: $!";
    return;
}

sub DESTROY {
    my ($self) = @_;
    return if $$ != $self->{owner};
    local ($?, $@, $!);
    $self->stop;
    return;
}

1;
