"""The annotation page: a small server over the ledger, and one hand-written front end in `static`.

server    options, and the process that `seral labels serve` starts
app       the application: its middleware, its errors, its pages
annotator what a person who labels may ask of it
lead      what a lead may ask of it besides
sessions  who asks: personal links, cookies, the header that other sites cannot send
doors     the names the server answers to, and what a proxy in front may say
limits    how much anybody may ask
sockets   how long a request may take to arrive, how many connections are open
sounds    clips out of the pool, by id
suggestions  what a model takes a clip for, where people may see it
"""
