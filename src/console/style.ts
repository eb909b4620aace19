/** The one style of all pages. Colours mean the state of something, and never stand alone: a word says the same. */
export const style = `
:root{color-scheme:light dark;--ground:#fafaf8;--field:#fff;--ink:#1b1e22;--quiet:#596069;--line:#dfe1e3;--link:#1d58b0;--alive:#136f41;--ending:#8a4f00;--stuck:#b3261e;--bar:#7d8b99}
@media (prefers-color-scheme:dark){:root{--ground:#121416;--field:#1b1e21;--ink:#e4e6e8;--quiet:#9ba3ab;--line:#2c3136;--link:#8ab6f9;--alive:#63cf9a;--ending:#eab25f;--stuck:#ff8f86;--bar:#6f7d8b}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.45 system-ui,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
a{color:var(--link);text-decoration-thickness:1px;text-underline-offset:2px}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
code,.id{font:.87em/1.4 ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.short,.tight{white-space:nowrap}.under{display:block}
.skip{position:absolute;left:-99em}.skip:focus{left:1rem;top:.5rem;background:var(--field);padding:.3rem .6rem}
header,main,footer{max-width:80rem;margin:0 auto;padding:0 1.25rem}
header{display:flex;flex-wrap:wrap;gap:.4rem 1.25rem;align-items:center;padding-top:.7rem;padding-bottom:.7rem;border-bottom:1px solid var(--line)}
header nav{display:flex;gap:1.1rem}header nav a{color:var(--quiet);text-decoration:none;padding:.2rem 0}
header nav a[aria-current]{color:var(--ink);box-shadow:0 2px var(--ink)}header nav a:first-child{color:var(--ink);font-weight:650}
header form{margin:0}header .find{margin-left:auto}header .find input{width:17rem}
.who{color:var(--quiet);display:flex;gap:.75rem;align-items:center}
main{padding-top:1.4rem;padding-bottom:3rem}
h1{font-size:1.45rem;line-height:1.25;font-weight:600;margin:0 0 .3rem;text-wrap:balance}
h2{font-size:.95rem;font-weight:650;margin:2.2rem 0 .5rem}
p{margin:.3rem 0;max-width:46rem}
.quiet,small{color:var(--quiet)}small{font-size:.87em}
table{border-collapse:collapse;width:100%}
th{text-align:left;font-weight:500;color:var(--quiet);font-size:.83rem;padding:.25rem 1rem .25rem 0;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:bottom}
td{padding:.42rem 1rem .42rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th.n,td.n{text-align:right}td time{white-space:nowrap}
.state{white-space:nowrap}.state::before{content:"";display:inline-block;width:.5em;height:.5em;border-radius:50%;background:currentColor;margin-right:.45em;vertical-align:.08em}
.alive{color:var(--alive)}.ending{color:var(--ending)}.stuck{color:var(--stuck)}.ended{color:var(--quiet)}.ended::before{background:none;box-shadow:inset 0 0 0 1.5px currentColor}
.said,code{unicode-bidi:isolate}.said{overflow-wrap:anywhere}.said::before{content:"\\201c"}.said::after{content:"\\201d"}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.25rem;margin:.9rem 0}.facts dt{color:var(--quiet)}.facts dd{margin:0;min-width:0;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:1fr 1fr;gap:0 3rem}.charts h2{margin-bottom:.2rem}
svg{display:block;width:100%;height:auto;max-width:34rem}svg text{text-anchor:middle;fill:var(--quiet);font:11px system-ui,"DejaVu Sans",sans-serif}
svg .bar{fill:var(--bar)}svg .denied{fill:var(--stuck)}svg>text[x="0"]{text-anchor:start}svg .base{stroke:var(--line)}
.timeline{list-style:none;margin:.5rem 0;padding:0}
.timeline li{display:grid;grid-template-columns:5.6rem 1fr;gap:0 1.1rem;position:relative;padding:.3rem 0}
.timeline li>div{border-left:1px solid var(--line);padding:0 0 .35rem 1.25rem;margin:-.3rem 0;padding-top:.3rem;position:relative;min-width:0}
.timeline li>div::before{content:"";position:absolute;left:-.26rem;top:.75rem;width:.45rem;height:.45rem;border-radius:50%;background:var(--quiet)}
.timeline .alive>div::before{background:var(--alive)}.timeline .ending>div::before{background:var(--ending)}.timeline .stuck>div::before{background:var(--stuck)}
.timeline li,.timeline li.alive,.timeline li.ending,.timeline li.stuck,.timeline li.ended{color:inherit}.timeline li::before{content:none}
.timeline .day{color:var(--quiet);font-size:.87rem;padding:.4rem 0 .2rem;display:block}.timeline time{color:var(--quiet);text-align:right;padding-top:.05rem;font-size:.87rem}
input,textarea,button,select{font:inherit;color:inherit;background:var(--field);border:1px solid #8b929a;border-radius:4px;padding:.32rem .55rem;max-width:100%}
button{cursor:pointer}button.end{background:var(--stuck);border-color:var(--stuck);color:var(--ground);font-weight:600}
button.plain{border:0;background:none;padding:.2rem 0;color:var(--link);text-decoration:underline;text-underline-offset:2px}
label{display:block;color:var(--quiet);font-size:.87rem;margin-bottom:.15rem}
.revoke{border:1px solid var(--line);border-radius:6px;padding:.9rem 1rem 1rem;margin-top:1.6rem;max-width:46rem}
.revoke div{display:flex;gap:.6rem;flex-wrap:wrap}.revoke input{flex:1 1 16rem}
.many div+label{margin-top:.7rem}.lift{display:flex;gap:.4rem;flex-wrap:wrap}.lift input{flex:1 1 9rem}label.whole{font-size:1em;color:inherit;margin:0 0 .4rem}.filters .whole input{width:auto}
.filters{display:grid;grid-template-columns:repeat(auto-fill,minmax(12.1rem,1fr));gap:.6rem .8rem;align-items:end;margin:.8rem 0 1.2rem}.filters input,.filters select{width:100%}.filters button{justify-self:start}
nav.questions{display:flex;flex-wrap:wrap;gap:.15rem 1.2rem;margin:.7rem 0 .5rem}.questions a{text-decoration:none;padding:.15rem 0}
.questions a[aria-current]{color:var(--ink);box-shadow:0 2px var(--ink)}
.alarm{border:1px solid var(--stuck);border-radius:6px;padding:.5rem 1rem;margin:.6rem 0 1rem;max-width:46rem}
.fault{color:var(--stuck)}
pre{background:var(--field);border:1px solid var(--line);border-radius:6px;padding:.7rem .9rem;overflow:auto;font:.85rem/1.5 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0 1rem}
summary{cursor:pointer}
#live{float:right;margin:.35rem 0 0 1rem;color:var(--quiet);font-size:.83rem}
@media (max-width:46rem){
header,main,footer{padding-left:1rem;padding-right:1rem}header .find{order:5;width:100%;margin:0}header .find input{width:100%}.who{margin-left:auto}.who span{display:none}
.charts{grid-template-columns:1fr}h1{font-size:1.3rem}
.stack thead{display:block;position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stack,.stack tbody,.stack tr,.stack td{display:block}.stack tr{padding:.55rem 0;border-bottom:1px solid var(--line)}.stack td{border:0;padding:.08rem 0}.stack td:empty{display:none}
.stack td[data-label]{position:relative;padding-left:7rem;text-align:left;white-space:normal}.stack td[data-label]::before{content:attr(data-label);position:absolute;left:0;color:var(--quiet);font-size:.87rem}
.stack td.zero{display:none}svg text{font-size:15px}
.timeline li{grid-template-columns:1fr;padding-left:0}.timeline time{text-align:left;padding-left:1.25rem;border-left:1px solid var(--line);margin-top:-.3rem;padding-top:.3rem}
.facts{grid-template-columns:6.5rem 1fr;gap:.3rem .5rem}input,textarea,button,select{padding:.5rem .6rem}.filters{grid-template-columns:1fr 1fr}
}
`
