"""Common English words and a few sentences of the project's own, so that real claims do not fall apart into bytes."""

from __future__ import annotations

WORDS = """
the of and to in a is that it was for on are as with his they be at one have this from or had by not but what all were
when we there can an your which their said if do will each about how up out them then she many some so these would
other into has more her two like him see time could no make than first been its who now people my made over did down
only way find use may water long little very after words called just where most know get through back much before go
good new write our used me man too any day same right look think also around another came come work three word must
because does part even place well such here take why things help put years different away again off went old number
great tell men say small every found still between name should home big give air line set own under read last never us
left end along while might next sound below saw something thought both few those always looked show large often
together asked house world going want school important until form food keep children feet land side without boy once
animals life enough took sometimes four head above kind began almost live page got earth need far hand high year
mother light parts country father let night following picture being study second eyes soon times story boys since
white days ever paper hard near sentence better best across during today others however sure means knew try told young
miles sun ways thing whole hear example heard several change answer room sea against top turned learn point city play
toward five using himself usually money seen car morning given order red plan door black ship short am building fire
half plant cut half ground class field remember state wood family sea war peace king queen president minister
government party election vote voters voted candidate campaign congress senate house court judge law laws legal police
officer crime prison trial case charge charged arrested killed death died dead deaths born birth age old hospital
doctor doctors nurse patient patients disease virus vaccine vaccines health medical medicine drug drugs test tests
tested positive negative symptoms infection spread pandemic lockdown mask masks cases rate rates percent per cent
million billion thousand hundred dollars euros pounds cost costs price prices tax taxes budget debt economy economic
growth jobs job workers work unemployment income poverty rich poor bank banks company companies business market trade
industry oil gas energy power electricity nuclear climate weather heat rain snow wind storm flood fires forest river
lake island mountain coast border borders wall immigrants immigration refugees citizens citizen rights right freedom
religion church muslim christian jewish women woman girl girls child parents families marriage gay student students
teacher teachers university college education research study studies scientist scientists science evidence report
reports reported reporter news newspaper article media social post posts posted video videos photo photos photograph
image images picture pictures shows show showed shown shared viral facebook twitter website online internet web page
account users user message messages phone call called calls email letter document documents record records data
information source sources statement claim claims claimed claiming true false fake real hoax rumour correct wrong
confirmed confirms confirm denied denies deny unclear proof proves prove supported refuted support supports supporters
question questions answer answers answered fact facts check checked checker according official officials office
department agency federal national international foreign local public private military army soldier soldiers weapon
weapons gun guns attack attacks attacked bomb violence protest protests protesters riot black lives matter white race
racist racism africa african america american americans united states kingdom england english british europe european
union india indian china chinese russia russian germany german france french italy italian spain nigeria kenya ghana
south north east west australia canada mexico brazil japan korea iran iraq israel pakistan ukraine syria washington
london paris delhi york california texas florida trump biden obama democrat democrats democratic republican
republicans secretary governor mayor senator member members group groups leader leaders speech speaks spoke speaking
say says saying states stated tweet tweeted interview event events day month months january february march april may
june july august september october november december monday tuesday wednesday thursday friday saturday sunday week
weeks weekend hour hours minute minutes year years ago today yesterday tomorrow date dates time early late later
former current new recent recently previous now since until before after during between among within increase
increased decrease decreased rise rose fall fell drop dropped high higher highest low lower lowest more less most
least average total number numbers many much several few only just also already still yet never ever always again
passed pass bill act signed sign order orders ordered policy policies decision decided agreement deal plan plans
planned program project system service services security fund funds funding paid pay payment payments buy bought sell
sold build built building open opened close closed start started begin began stop stopped end ended move moved run ran
lead led win won lose lost play played team teams game games player world cup film movie actor actress singer song
music book books author wrote written write published publish release released announced announcement allowed allow
ban banned require required force forced include including included use used using make made making take took taken
give gave given get getting found finding find created create cause caused causes effect effects risk safe safety
danger dangerous protect protection prevent prevented help helped need needed want wanted believe believed think
thought know known knew understand mean means meant seems appear appears appeared become became happen happened remain
remained stay left leave arrive arrived travel travelled visit visited meet met meeting ask asked tell told speak talk
talked hold held bring brought send sent receive received offer offered accept refused refuse agree agreed against for
without because although though while whether if then than therefore however despite instead rather quite very really
nearly almost about around approximately exactly actually reportedly allegedly apparently probably possibly perhaps
likely unlikely certain certainly clear clearly possible impossible able unable free full empty long short big small
large great little old young good bad better worse best worst easy hard strong weak hot cold warm dry wet clean dirty
"""

SENTENCES = """
There is no evidence that the claim is true.
According to the report, the number of cases has increased since last year.
The photo was taken in another country and shows a different event.
No answer could be found.
Is there any record of this statement?
How many people died in the United States during the first year of the pandemic?
What did the president say about taxes in the interview?
Did the government announce a new policy on immigration?
The video has been shared on Facebook and Twitter with a false caption.
Yes, the company confirmed it in a statement to the press.
No, the document does not mention the minister at all.
When was the law passed, and who voted against it?
The unemployment rate fell to 3.5 percent, the lowest in fifty years.
Premise : A man is playing a guitar on the stage. Hypothesis : A man is making music.
Question : Where would you put a plate after washing it? Choices : cupboard, table, shelf. Answer :
It isn't clear whether the vaccine was tested on children, the doctor said.
They've spent $2 million on the project; it wasn't finished until 2019.
The World Health Organization doesn't recommend the drug for this disease.
"We won't raise taxes," the candidate said on Monday, 12 October 2020.
The court found that the police officer had acted within the law.
"""


def word_corpus() -> list[str]:
    """The words, each behind a space and once with a capital letter, and the sentences."""
    words = WORDS.split()
    return [" " + word for word in words] + [" " + word.capitalize() for word in words] + SENTENCES.strip().split("\n")
