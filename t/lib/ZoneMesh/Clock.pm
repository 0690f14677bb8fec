package ZoneMesh::Clock;

# A clock of its own for one nginx, which a test sets while it runs: Debian's libfaketime, loaded before all else. What only counts
# time (timers, pauses) goes on as ever.
#
#     my $clock = ZoneMesh::Clock->new($node, 60) or skip(ZoneMesh::Clock->why_not, 1);    # a minute ahead, before it starts
#     $clock->set(-60);

use strict;
use warnings;

# The one for programs with threads.
sub library { return (glob '/usr/lib/*/faketime/libfaketimeMT.so.1')[0] }

sub why_not { return 'no libfaketime: the package of Debian\'s that has it is not installed' }

# For a node that isn't started yet; nothing if it can't be had here.
sub new {
    my ($class, $node, $seconds) = @_;
    my $library = library() or return;
    my $self = bless { node => $node }, $class;
    $self->set($seconds // 0);
    my %env = (
        FAKETIME_TIMESTAMP_FILE      => $node->prefix . '/clock',
        FAKETIME_NO_CACHE            => 1,
        FAKETIME_DONT_FAKE_MONOTONIC => 1,
        FAKETIME_DISABLE_SHM         => 1,
        NO_FAKE_STAT                 => 1,
    );
    # nginx clears its environment but for what it is told to keep; the file is looked up in there each time.
    my $main = join '', map { "env $_;\n" } sort keys %env;
    $node->configure(env => { %env, LD_PRELOAD => $library }, main => ($node->{main} // '') . $main);
    return $self;
}

# So many seconds ahead of the machine's clock, or behind it; takes effect at once.
sub set {
    my ($self, $seconds) = @_;
    my $file = $self->{node}->write_file('clock.new', sprintf "%+d\n", $seconds);
    rename $file, $self->{node}->prefix . '/clock' or die "$file: $!";
    return;
}

1;
