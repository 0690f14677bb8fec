#!/usr/bin/perl

# What key-values can do below /9/zonemesh/: pages, conditions, patterns, any bytes, import and export.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2, http => <<'CONF', stream => <<'STREAM')->start;
    keyval_zone zone=one:32m;
    keyval_zone zone=timed:1m timeout=1h;
    keyval_zone zone=dir/zone:64k;
    keyval $arg_key $of_one zone=one;
    client_max_body_size 64m;
    client_body_buffer_size 16k;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api write=on; }
        location /read { api; }
        location /ssi/ { ssi on; root %%PREFIX%%/html; }
        location = /one { return 200 $of_one; }
    }
CONF
    keyval_zone zone=streamed:64k;
    server { listen 127.0.0.1:%%SYNC%%; return ''; }
STREAM

my $own = '/api/9/zonemesh/keyvals';
my $one = "$own/one";

sub put   { my ($target, $body, %headers) = @_; return $node->request('PUT', $target, body => $body, headers => \%headers) }
sub pairs { return $node->get($_[0])->json->{pairs} }
sub lines { return join '', map { ZoneMesh::Node::encode($_) . "\n" } @_ }

subtest 'one pair' => sub {
    is_deeply([ @{ $node->get("$own/")->json } ], [ sort qw(one timed dir/zone streamed) ], 'zones of http and stream');
    my $created = put($one, '{"a":"1"}');
    is($created->status, 201, 'PUT creates');
    is($created->body,   '',  'and says no more');
    my $tag = $created->header('ETag');
    like($tag, qr/^"[0-9a-f]{16}-[0-9a-f]{32}"$/, 'but the tag');
    is($node->get('/one?key=a')->body, '1', 'a variable has it');
    is(put("$one/?key=a", '"2"')->status, 204, 'PUT replaces');
    my $shown = $node->get("$one?key=a");
    is($shown->body, '{"a":"2"}', 'GET shows it');
    isnt($shown->header('ETag'), $tag, 'with another tag');
    is($node->get("$one?key=a", headers => { 'If-None-Match' => $shown->header('ETag') })->status, 304, 'known already');
    is($node->get("$one?key=a", headers => { 'If-None-Match' => $tag })->status, 200, 'not the one before');
    my $failed = put("$one?key=a", '"3"', 'If-Match' => $tag);
    is($failed->status, 412, 'a write that comes too late');
    is($failed->json->{error}{code}, 'PreconditionFailed', 'is refused');
    is(put("$one?key=a", '"3"', 'If-Match' => $shown->header('ETag'))->status, 204, 'one in time is done');
    is(put("$one?key=a", '"4"', 'If-None-Match' => '*')->status, 412, 'nothing is created twice');
    is($node->delete("$one?key=a", headers => { 'If-Match' => $tag })->status, 412, 'nor deleted too late');
    is($node->delete("$one?key=a")->status, 204, 'DELETE');
    is($node->delete("$one?key=a")->status, 404, 'once');
    is(put("$own/dir%2Fzone", '{"a":"1"}')->status, 201, 'a zone with a slash');
    is(put("$own/streamed", '{"a":"1"}')->status, 201, 'a zone of stream');
    is_deeply($node->get('/api/9/stream/keyvals/streamed')->json, { a => '1' }, 'which the documented path shows');
    my $meta = $node->get("$own/timed?meta=1");
    is(put("$own/timed", '{"t":{"value":"v","expire":50000}}')->status, 201, 'a life');
    $meta = pairs("$own/timed?meta=1")->{t};
    is($meta->{value}, 'v', 'meta: the value');
    ok($meta->{expire} > 40_000 && $meta->{expire} <= 50_000, 'what is left of its life');
    like($meta->{origin}, qr/^[0-9a-f]{16}$/, 'who wrote it');
};

subtest 'counting with conditions' => sub {
    is(put("$one?key=count", '"0"')->status, 201, 'a counter');
    my @children;
    for my $n (1 .. 4) {
        my $pid = fork // die $!;
        if (!$pid) {
            my $done = 0;
            while ($done < 25) {
                my $now = $node->get("$one?key=count");
                my $put = put("$one?key=count", '"' . ($now->json->{count} + 1) . '"', 'If-Match' => $now->header('ETag'));
                $done++ if $put->status == 204;
            }
            POSIX::_exit(0);
        }
        push @children, $pid;
    }
    waitpid $_, 0 for @children;
    is($node->get("$one?key=count")->json->{count}, 100, 'four clients lose no step');
    is($node->delete("$one?key=count")->status, 204, 'gone');
};

my %all = map { ("user:$_:" . $_ % 7 => 'v' x ($_ % 200)) } 1 .. 20_000;

subtest 'import' => sub {
    my @lines = map { { $_ => $all{$_} } } sort keys %all;
    my $report = $node->post($one, lines(@lines));
    is($report->status, 200, 'lines from a file') or diag($report->body);
    is_deeply($report->json, { lines => 20_000, created => 20_000, replaced => 0, deleted => 0, missing => 0, failed => 0, errors => [] },
        'are counted');
    is($node->get('/one?key=user:77:0')->body, 'v' x 77, 'and there');
    my $chunked = $node->request('POST', $one, chunked => [ unpack '(a5000)*', lines(@lines[0 .. 999]) ]);
    is($chunked->json->{replaced}, 1000, 'in chunks, too');
    my $bad = $node->post($one, "{\"a\":\"1\"}\nnonsense\n{\"b\":\"2\"}\n");
    is($bad->status, 400, 'a bad line');
    is($bad->json->{error}{code}, 'ImportIncomplete', 'is said');
    is($bad->json->{report}{errors}[0]{line}, 2, 'and which it is');
    is($bad->json->{report}{created}, 2, 'and does not keep the others out');
    is($node->post($one, lines({ a => undef }, { b => undef }))->json->{deleted}, 2, 'null deletes');
    is($node->post("/read/9/zonemesh/keyvals/one", "{}\n")->status, 405, 'not without write=on');
};

subtest 'an import that comes slowly' => sub {
    my $socket = tcp($node->port);
    my @lines  = map { qq({"slow $_":"v"}\n) } 1 .. 100;
    print {$socket} "POST $one HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: " . length(join '', @lines) . "\r\n\r\n", @lines[ 0 .. 49 ];
    eventually { $node->get("$one?key=slow%2050")->status == 200 } 'lines are done as they come';
    is($node->get("$one?key=slow%2051")->status, 404, 'and no further');
    print {$socket} @lines[ 50 .. 98 ], substr $lines[99], 0, 5;
    eventually { $node->get("$one?key=slow%2099")->status == 200 } 'more of them';
    print {$socket} substr $lines[99], 5;
    my ($bytes) = read_all($socket);
    is(ZoneMesh::Http->parse($bytes, 'POST', 1)->json->{created}, 100, 'all of them');
    my $gone = tcp($node->port);
    print {$gone} "POST $one HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{\"gone 1\":\"v\"}\n{\"gone 2";
    eventually { $node->get("$one?key=gone%201")->status == 200 } 'a client begins';
    close $gone;
    is($node->get("$one?key=gone%202")->status, 404, 'and goes away: what came whole is done');
    is($node->request('DELETE', "$one?glob=" . ZoneMesh::Node::escape('slow *'))->json->{deleted}, 100, 'they go again');
    is($node->request('DELETE', "$one?prefix=gone")->json->{deleted}, 1, 'this one as well');
    is($node->request('DELETE', "$one?prefix=")->status, 400, 'nothing by an empty prefix');
};

subtest 'a reload in the middle of an import' => sub {
    my $body   = lines(map { { "reload $_" => 'x' x 50 } } 1 .. 50_000);
    my $socket = tcp($node->port);
    print {$socket} "POST $one HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    $node->reload;
    my ($bytes) = read_all($socket, 20);
    my $report = ZoneMesh::Http->parse($bytes, 'POST', 1)->json;
    is($report->{created}, 50_000, 'the old worker does it to the end');
    is($node->delete("$one?prefix=reload%20")->json->{deleted}, 50_000, 'and the new one has it all');
};

subtest 'export' => sub {
    my $lines = $node->get("$one?format=ndjson", timeout => 30);
    like($lines->header('Content-Type'), qr{^application/x-ndjson}, 'lines');
    my %got = map { %{ json($_) } } split /\n/, $lines->body;
    is_deeply(\%got, \%all, 'give all pairs');
    my @pages;
    my $next = '';
    while (defined $next) {
        my $page = $node->get("$one?limit=3000$next")->json;
        push @pages, $page->{pairs};
        $next = defined $page->{next} ? "&after=$page->{next}" : undef;
    }
    is(scalar @pages, 7, 'pages');
    ok(!(grep { keys %$_ > 3000 } @pages), 'none too long');
    is_deeply({ map { %$_ } @pages }, \%all, 'together all');
    my $sum = 0;
    $sum += keys %$_ for @pages;
    is($sum, 20_000, 'none twice');
    is(keys %{ pairs("$one?prefix=user:1999") }, 11, 'those that begin so');
    mkdir $node->prefix . "/$_" for qw(html html/ssi);
    $node->write_file('html/ssi/page.html', '<!--# include virtual="/api/9/zonemesh/keyvals/one?prefix=user:77:" -->');
    is_deeply(json($node->get('/ssi/page.html')->body)->{pairs}, { 'user:77:0' => 'v' x 77 }, 'within a page');
    $node->reload(http => $node->{http} =~ s/zone=one:32m/zone=one:40m/r);
    my $gone = $node->get("$one?limit=1&after=" . substr $next // '&after=' . ('0' x 16) . '.0', 7);
    is($gone->status, 410, 'a place in a zone that is another now');
    is_deeply([ sort keys %{ pairs($one) } ], [ sort keys %all ], 'which still has all');
};

subtest 'many at once' => sub {
    my %many = map { ("many $_" => "$_") } 1 .. 5000;
    is($node->request('PUT', $one, body => ZoneMesh::Node::encode(\%many))->body,
        '{"created":5000,"replaced":0,"deleted":0,"missing":0}', 'PUT');
    my $fault = ZoneMesh::Node::encode({ %many, 'many 1' => 'changed' }) =~ s/\}$/,"last":5}/r;
    is(put($one, $fault)->status, 400, 'a fault');
    is($node->get("$one?key=many%201")->body, '{"many 1":"1"}', 'changes nothing');
    is($node->delete("$one?prefix=many%20&suffix=9")->body, '{"deleted":500}', 'DELETE by beginning and end');
    is($node->delete("$one?glob=user:*:3")->body, '{"deleted":2857}', 'by a pattern');
    is($node->delete("$one?prefix=nothing")->body, '{"deleted":0}', 'nothing');
    is($node->delete($one)->status, 400, 'not without saying what');
    is($node->delete("$one?glob=*")->body, '{"deleted":21643}', 'all');
    is_deeply(pairs($one), {}, 'and nothing is left');
};

subtest 'bytes' => sub {
    is($node->request('PUT', "$one?key=%ff%00", body => '{"base64":"AP/+"}')->status, 201, 'bytes');
    is_deeply(pairs($one), { "\x{fffd}\0" => { key => { base64 => '/wA=' }, value => { base64 => 'AP/+' } } }, 'as Base64');
    my $lines = $node->get("$one?format=ndjson&meta=1")->body;
    is($node->delete("$one?glob=?*")->body, '{"deleted":1}', 'deleted');
    is($node->post($one, $lines)->json->{created}, 1, 'what was exported is imported');
    is($node->get("$one?key=%ff%00")->status, 200, 'byte for byte');
};

done_testing;
