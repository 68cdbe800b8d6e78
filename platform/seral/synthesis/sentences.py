"""Sentences of the demonstration speakers: ten a language, with the valence of their words from -1 to 1.

Every sentence can be spoken in every emotion. Six are about nothing, four carry a word that leans one way.
"""

from __future__ import annotations

SENTENCES: dict[str, tuple[tuple[str, float], ...]] = {
    "en": (
        ("The keys are lying on the kitchen table.", 0.0),
        ("He will call you again this afternoon.", 0.0),
        ("The bus stops right behind the station.", 0.0),
        ("We have to be there at a quarter past nine.", 0.0),
        ("She put the letter back into the drawer.", 0.0),
        ("There are seven chairs in the other room.", 0.0),
        ("They gave me a lovely present yesterday.", 1.0),
        ("We finally won the game on Sunday.", 0.8),
        ("He forgot my birthday and said nothing.", -0.8),
        ("The house was empty, everything was lost.", -1.0),
    ),
    "de": (
        ("Die Schlüssel liegen auf dem Küchentisch.", 0.0),
        ("Er ruft dich heute Nachmittag noch einmal an.", 0.0),
        ("Der Bus hält gleich hinter dem Bahnhof.", 0.0),
        ("Wir müssen um Viertel nach neun dort sein.", 0.0),
        ("Sie legte den Brief zurück in die Schublade.", 0.0),
        ("Im anderen Zimmer stehen sieben Stühle.", 0.0),
        ("Sie haben mir gestern etwas Schönes geschenkt.", 1.0),
        ("Am Sonntag haben wir endlich gewonnen.", 0.8),
        ("Er hat meinen Geburtstag einfach vergessen.", -0.8),
        ("Das Haus war leer, alles war verloren.", -1.0),
    ),
    "es": (
        ("Las llaves están sobre la mesa de la cocina.", 0.0),
        ("Te volverá a llamar esta tarde.", 0.0),
        ("El autobús para justo detrás de la estación.", 0.0),
        ("Tenemos que estar allí a las nueve y cuarto.", 0.0),
        ("Ella guardó la carta otra vez en el cajón.", 0.0),
        ("Hay siete sillas en la otra habitación.", 0.0),
        ("Ayer me hicieron un regalo precioso.", 1.0),
        ("El domingo por fin ganamos el partido.", 0.8),
        ("Se olvidó de mi cumpleaños y no dijo nada.", -0.8),
        ("La casa estaba vacía, todo estaba perdido.", -1.0),
    ),
    "fr": (
        ("Les clés sont sur la table de la cuisine.", 0.0),
        ("Il va te rappeler cet après-midi.", 0.0),
        ("Le bus s'arrête juste derrière la gare.", 0.0),
        ("Nous devons y être à neuf heures et quart.", 0.0),
        ("Elle a remis la lettre dans le tiroir.", 0.0),
        ("Il y a sept chaises dans l'autre pièce.", 0.0),
        ("Hier, on m'a fait un très beau cadeau.", 1.0),
        ("Dimanche, nous avons enfin gagné.", 0.8),
        ("Il a oublié mon anniversaire et n'a rien dit.", -0.8),
        ("La maison était vide, tout était perdu.", -1.0),
    ),
    "it": (
        ("Le chiavi sono sul tavolo della cucina.", 0.0),
        ("Ti richiamerà oggi pomeriggio.", 0.0),
        ("L'autobus si ferma proprio dietro la stazione.", 0.0),
        ("Dobbiamo essere lì alle nove e un quarto.", 0.0),
        ("Ha rimesso la lettera nel cassetto.", 0.0),
        ("Nell'altra stanza ci sono sette sedie.", 0.0),
        ("Ieri mi hanno fatto un regalo bellissimo.", 1.0),
        ("Domenica abbiamo finalmente vinto.", 0.8),
        ("Ha dimenticato il mio compleanno senza dire niente.", -0.8),
        ("La casa era vuota, tutto era perduto.", -1.0),
    ),
}
"""ISO 639-1 code -> (sentence, valence of the words)."""
