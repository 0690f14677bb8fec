package ZoneMesh::Given;

# Configurations of the commercial nginx as people have them, made to run on this machine: addresses, paths and the names
# of resolvers are replaced, and what nginx before 1.27 demands is added. Nothing else may differ.
#
#     my $text = given($lines, '10.0.0.1:9000' => '127.0.0.11:12345', ...);
#
# Every replacement must be of something that is there.

use strict;
use warnings;

use Exporter 'import';
use Test::More ();

use ZoneMesh::Node;

our @EXPORT = qw(given left_out);

sub given {
    my ($text, @replace) = @_;
    while (my ($from, $to) = splice @replace, 0, 2) {
        my $times = $text =~ s/\Q$from\E/$to/g;
        die "there is no '$from' to replace in:\n$text" unless $times;
    }
    # Before 1.27 nginx takes no other file for whom to trust as a client.
    $text =~ s/^(\s*)ssl_trusted_certificate(\s+\S+;)/$&$1ssl_client_certificate$2/mg
        if ZoneMesh::Node::nginx_version() < 1_027_000;
    return $text;
}

# Takes what matches out of the text, and says what it waits for.
sub left_out {
    my ($feature, $pattern, $text) = @_;
    my $times = $text =~ s{$pattern}{ Test::More::note("left out until \"$feature\" works: $&"); '' }ge;
    die "there is no $pattern to leave out in:\n$text" unless $times;
    return $text;
}

1;
