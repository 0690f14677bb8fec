# Sessions in the other ways that requests take through nginx: TLS to the servers, subrequests, errors that are intercepted,
# redirects inside nginx, clients that go away.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;

my $ca = authority('the CA');
my ($certificate, $key) = $ca->issue('server', ip => ['127.0.0.1']);
my @ports = map { port() } 1 .. 2;
my $servers = join '', map { "
    server {
        listen 127.0.0.1:$ports[$_] ssl;
        ssl_certificate $certificate; ssl_certificate_key $key;
        location /login    { add_header Set-Cookie session=\$arg_s; return 200 $_; }
        location /redirect { add_header Set-Cookie session=\$arg_s; add_header X-Accel-Redirect /inside; return 200 $_; }
        location /missing  { add_header Set-Cookie session=\$arg_s always; return 404 $_; }
        location /long     { add_header Set-Cookie session=\$arg_s; alias %%PREFIX%%/long; limit_rate 1k; }
        location /         { return 200 $_; }
    }" } 0, 1;
my $learn = 'sticky learn create=$upstream_cookie_session lookup=$cookie_session';
my $front = node(name => 'front', http => "
    $servers
    proxy_http_version 1.1; proxy_set_header Connection \"\";
    proxy_ssl_session_reuse on;
    upstream end  { server 127.0.0.1:$ports[0]; server 127.0.0.1:$ports[1]; $learn zone=end-sessions:64k; keepalive 2; }
    upstream head { zone head 64k; server 127.0.0.1:$ports[0]; server 127.0.0.1:$ports[1]; keepalive 2; $learn zone=head-sessions:64k header; }
    server {
        listen 127.0.0.1:%%PORT%%;
        error_page 404 = \@missing;
        location \@missing { return 200 intercepted; }
        location /inside  { internal; return 200 inside; }
        " . join('', map { "
        location /$_/      { proxy_pass https://$_/; }
        location /$_/missing { proxy_intercept_errors on; proxy_pass https://$_/missing; }
        location = /$_-auth { internal; proxy_pass https://$_/login?s=behind; }
        location /$_/behind { auth_request /$_-auth; proxy_pass https://$_/; }" } qw(end head)) . '
    }');
$front->write_file('long', '-' x 50_000);
$front->start;

for my $name (qw(end head)) {
    my $path = "/$name/";
    my $who  = login($front, 'tls', $path);
    is(join('', map { with($front, 'tls', $path) } 1 .. 12), $who x 12, "$name: over TLS");
    is(login($front, 'redirect', "$path") =~ /^[01]$/ && $front->get("${path}redirect?s=inside")->body, 'inside', "$name: a redirect inside nginx");
    my @seen = map { with($front, 'inside', $path) } 1 .. 6;
    is(join('', @seen), $seen[0] x 6, '... begins a session');
    is($front->get("${path}missing?s=missing")->body, 'intercepted', "$name: an error that is intercepted");
    @seen = map { with($front, 'missing', $path) } 1 .. 6;
    is(join('', @seen), $seen[0] x 6, '... begins one as well');
    like($front->get("${path}behind")->body, qr/^[01]$/, "$name: behind a subrequest");
    @seen = map { with($front, 'behind', $path) } 1 .. 6;
    is(join('', @seen), $seen[0] x 6, '... whose response begins one');

    # Who goes away in the middle has had the header, and with it the session.
    my $socket = tcp($front->port);
    print {$socket} "GET ${path}long?s=gone HTTP/1.0\r\n\r\n";
    my $head = '';
    wait_for(sub { sysread $socket, $head, 65_536, length $head; $head =~ /\r\n\r\n-/ });
    close $socket;
    ok(wait_for(sub { my @now = map { with($front, 'gone', $path) } 1 .. 6; join('', @now) eq $now[0] x 6 }),
        "$name: a client that goes away has its session");
}

done_testing;
