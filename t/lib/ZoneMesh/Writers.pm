package ZoneMesh::Writers;

# Clients that change keys of their own all the while, each in a process, and remember what was answered with success.
#
#     my $writers = ZoneMesh::Writers->new([1 .. 4], sub { my ($who, $i) = @_; ...; return ($key => $value) });
#     ...
#     my %acknowledged = $writers->stop;    # what each key must have now
#
# The code makes the `$i`th change of `$who` (from 1 on) and says what the key has by it, in a few characters and without
# spaces in either; undef: it isn't known, as nothing was answered.

use strict;
use warnings;

use POSIX ();

sub new {
    my ($class, $all, $change) = @_;
    pipe my $out, my $in or die "pipe: $!";
    my @pids = map {
        my $who = $_;
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            close $out;
            my ($stop, $i, %last) = (0, 0);
            local $SIG{TERM} = sub { $stop = 1 };
            until ($stop) {
                my ($key, $has) = $change->($who, ++$i);
                $last{$key} = $has;
            }
            # At once and short, so that what several write isn't mixed.
            syswrite $in, join '', map { defined $last{$_} ? "$_ $last{$_}\n" : () } keys %last;
            POSIX::_exit(0);
        }
        $pid;
    } @$all;
    close $in;
    return bless { pids => \@pids, out => $out }, $class;
}

# Ends them; what each key was acknowledged to have.
sub stop {
    my ($self) = @_;
    kill 'TERM', @{ $self->{pids} };
    my %acknowledged = do { local $/; split ' ', readline($self->{out}) // '' };
    waitpid $_, 0 for @{ $self->{pids} };
    return %acknowledged;
}

1;
