"""Words by what they give away. English entries are regular expressions of whole words, Chinese ones plain strings."""

from __future__ import annotations

from dataclasses import dataclass

Words = tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """The words of one language.

    Attributes:
        looks: Appearance and gender: never in a motion text.
        things: Clothes, hair and the like: in a motion text only as what is touched or where something is.
        contact: What makes such a thing a thing that is touched, when it stands before it in the same clause.
        hands: What touches: with one of these anywhere in the clause the thing is touched too.
        places: What makes such a thing a place or an aim. English ones reach up to the thing.
        worn: What makes it one that is worn all the same, reaching up to it. Empty where `looks` tells that anyway.
        poses: Action and posture: never in an appearance text.
        stands: Action and posture if the character does it. What it wears may do it too.
        pronouns: Who does it, besides the names in `humans`, `birds` and `quadrupeds`.
        limbs: What birds and quadrupeds do not have.
        harmless: Longer words and phrases in which one of the above means something else.
        humans, birds, quadrupeds: What a character can be.
        pretended: What makes an animal one that may have hands: a toy, a mascot, a cartoon.
        subject_ends: What ends the naming of the character in its description.
        phrase_ends: What ends, within that, the noun phrase whose last word says what the character is.
        head_tails: What may follow that word without making it another one.
    """

    looks: Words
    things: Words
    contact: Words
    hands: Words
    places: Words
    worn: Words
    poses: Words
    stands: Words
    pronouns: Words
    limbs: Words
    harmless: Words
    humans: Words
    birds: Words
    quadrupeds: Words
    pretended: Words
    subject_ends: Words
    phrase_ends: Words
    head_tails: Words


def _words(listed: str) -> Words:
    return tuple(word.strip() for word in listed.split(",") if word.strip())


_PEOPLE_EN = _words(r"""
    m[ae]n, wom[ae]n, boys?, girls?, lad(?:y|ies), gentlem[ae]n, guys?, grandmother, grandfather, mother,
    father
""")

_DETERMINERS_EN = "(?:an?|the|its|his|her|their|this|that|these|those|some|one|two|three|another|each|both)"
_PREPOSITIONS_EN = (
    "in|on|at|by|from|to|for|into|near|under|over|above|behind|against|without|inside|among|between|around|next|across|through"
)

_FIGURES_EN = "(?:characters?|persons?|people|performers?|dancers?|subjects?|individuals?|figures?(?! (?:of )?(?:eight|8)))"
_FITTING_EN = "(?:tall|thin|short|small|big|large|tiny|huge|little|orange|cute|pretty|strong|heavy|chinese|japanese|korean|indian"
_FITTING_EN += "|african|european|american|arab|russian|latin)"
_JOINING_EN = "and|or|but|as|of|with|while|when|until|before|after|so|then|like|towards?"
_BETWEEN_EN = rf"(?!(?:{_DETERMINERS_EN}|{_PREPOSITIONS_EN}|{_JOINING_EN})\b)"
_OF_SOMEBODY_EN = (
    # a movement or a thing can be that too ("takes short steps", "stands tall", "a thin smile"): here somebody is
    rf"{_FITTING_EN}(?=(?:,?(?: and| but)? {_BETWEEN_EN}[\w-]+){{0,2}} {_FIGURES_EN}(?![\w-]))",
    rf"(?<=\bcharacter is ){_FITTING_EN}(?=[.,;]| and\b)",
)

_WORN_EN = (
    r"(?:sitting|lying|perched) (?:\w+ )?(?:on|atop|upon|over|around|across) (?:(?:his|her|its|the|their|one) )?"
    r"(?:(?:bridge|tip|end|top|side|back|crown) of (?:his|her|its|the|their) )?"
    r"(?:head|nose|forehead|brow|ears?|neck|hips?|waist|shoulders?)"
)

ENGLISH = Lexicon(
    looks=_PEOPLE_EN
    + _words(r"""
    males?, females?, he, him, his, himself, she, her, hers, herself,
    masculine, feminine, red, blue, green, yellow, black, white, pink,
    purple, brown, gr[ae]y, beige, turquoise, gold, golden, silver, violet, magenta, crimson, scarlet, maroon,
    blond(?:e)?, brunette, redhead(?:ed)?, bald, bearded, curly, freckle[sd]?, (?:pony|pig)-?tailed,
    tattoo(?:s|ed)?, \w+-haired, (?:dark|light|fair|pale|tanned)[- ]skin(?:ned)?, skin tone, complexion,
    wear(?:s|ing)?, wore, dressed in, clad, outfit, costume, shirtless, barefoot, elderly, young, old,
    middle-aged, teenage[rd]?, slim, slender, muscular, chubby, stocky, fat, petite, handsome, beautiful,
    asian, caucasian, hispanic, latin[ao], african-american,
    actress(?:es)?, heroines?, kings?, queens?, princes?, princess(?:es)?, waitress(?:es)?, hostess(?:es)?, ballerinas?,
    brides?, bridegrooms?, nuns?, sons?, daughters?, brothers?, sisters?, husbands?, wi(?:fe|ves), uncles?, aunts?, mom, mum, dad
    """)
    + _OF_SOMEBODY_EN,
    things=_words(r"""
    (?:t-)?shirts?, blouse, skirt, dress, trousers, jeans, shorts, jacket, coat, sweater, hoodie, suit, gown, uniform,
    socks?, shoes?, sneakers?, boots?, sandals?, hats?, cap, scarf, gloves?, necktie, earrings?, necklace, bracelets?,
    (?:sun)?glasses, wristwatch, hair, hairstyle, beard, moustache, mustache, ponytail, sleeves?, collar, belt, clothes, clothing
    """),
    contact=_words(r"""
    touch\w*, hold\w*, held, grip\w*, grasp\w*, grab\w*, adjust\w*, pull\w*, tug\w*, smooth\w*, brush\w*, pat\w*, rest\w*,
    stroke\w*, clutch\w*, pinch\w*, press\w*, lift\w*, tuck\w*, pick\w*, push\w*, comb\w*, straighten\w*,
    t(?:ies?|ied|ying), put\w*, tak(?:es?|ing), remov\w*, zip\w*, button\w*, fasten\w*, flip\w*, toss\w*, flick\w*, on,
    against, bring\w*, brought, rais(?:es?|ed|ing), lower\w*, plac(?:es?|ed|ing), wip(?:es?|ed|ing), throw\w*, tip\w*,
    play\w* with, fiddl\w* with, slid(?:es?|ing)
    """),
    hands=_words("hands?, palms?, fists?, fingers?, fingertips?, thumbs?, knuckles?"),
    places=(
        r"(?:to|for|through|over|near|towards?|above|below|under|behind|beside|along|around|past|into|onto|level of|height of"
        r"|level with|in front of) (?:(?!(?:and|while|as|but)\b)[\w'-]+ ){0,4}$",
    ),
    # "in a red coat", but not "in its coat", which is a place
    worn=(r"(?:in|with) (?:an? )?(?:(?!(?:the|its|their|one|both|either|each)\b)[\w'-]+ ){0,2}$",),
    poses=_words(r"""
    standing, sitting, seated, kneel(?:s|ing)?, knelt, lying, walks?, walking,
    running(?! (?:down|along|across|around|through|from|over)),
    jump(?:s|ing|ed)?, dances, danced, dancing, crouch(?:es|ing|ed)?, squats, squatting, in a squat, lean(?:s|ing), waving,
    raising, posing, poses?, posed, posture, stance, smil(?:e|es|ing), grin(?:s|ning)?, frown(?:s|ing)?, laugh(?:s|ing)?,
    gaz(?:es|ing), star(?:es|ing), look(?:s|ing) (?:at|to|toward|towards|up|down|away|over|straight|directly),
    fac(?:es|ing) (?:the|left|right|forward|away|us), crossed (?:arms|legs), (?:arms|legs) (?:are )?crossed, cross-legged,
    raised (?:arms?|hands?|fists?|legs?|paws?|wings?),
    (?:arms?|hands?|legs?|paws?|wings?) (?:is |are )?(?:raised|outstretched|lowered), bent (?:arms?|elbows?|legs?|knees?),
    hands? on (?:its |the |their |his |her )?hips?, gestur(?:e|es|ing), pointing (?:at|to|with),
    perched, flying, crawl(?:s|ing)?(?! (?:up|down|along|across|around|over)), on all fours,
    (?:arms?|hands?|legs?|knees?|elbows?|paws?|wings?) (?:is |are |held )?(?:\w+ly )?(?:spread|folded|extended|stretched out|bent),
    wings? (?:is |are |held )?(?:\w+ly )?(?:open|opened|unfurled), legs? (?:is |are |wide )?apart, arms? akimbo,
    arms? at (?:its |the |their |his |her )sides?, hands? (?:is |are )?clasped,
    (?:spread|folded|extended|outstretched|outspread|unfurled) (?:arms?|hands?|legs?|paws?|wings?),
    heads? (?:is |are |held )?(?:\w+ly )?(?:tilted|bowed|cocked|turned|lowered|raised|thrown back), (?:tilted|bowed|cocked) head,
    tilt(?:s|ing) (?:its|the|their|his|her) head,
    (?:mouth|lips|jaws?|beak) (?:is |are |hangs )?(?:\w+ly |wide )?(?:open|agape|parted),
    (?:open|parted) (?:mouth|lips|beak), open-mouthed, (?:mouth|eyes) (?:is |are )?(?:\w+ly )?closed, closed (?:mouth|eyes),
    tongue (?:is )?(?:hanging |sticking |lolling |poking )?out, wink(?:s|ing)
    """),
    stands=_words("stands?, stood, sits?, sat"),
    pronouns=_words("it, they, he, she, who, characters?, figures?, robots?, creatures?, animals?, dolls?, toys?, mascots?"),
    limbs=_words("hands?, palms?, fists?, fingers?, fingertips?, thumbs?, knuckles?, wrists?, arms?, forearms?"),
    harmless=_words(r"""
    (?:running|walking|dancing|jumping) (?:shoes?|boots?|shorts|stick|cane|tights), jump (?:suits?|ropes?), standing collar,
    stand-up collar, (?:hair|fur|mane|ears?|spikes?|feathers|crest|tufts?|collar) standing (?:up|upright|on end|out|erect),
    sitting room, palm (?:trees?|lea(?:f|ves)|fronds?|prints?), on the other hand, (?:laugh|smile|frown) lines?,
    flying (?:jackets?|goggles|helmets?|suits?|boots?|caps?|coats?|squirrels?|fox|foxes|saucers?|carpets?),
    (?:hair|mane|scarf|scarves|cape|cloak|ribbons?) flying, (?:of|with) (?:an? |the )?flying \w+,
    (?:trousers?|pants?|jeans|pyjama) legs? (?:is |are )?\w+, king pigeon, king dancer,
    arms? of (?:the|a|an) (?:\w*chair|sofa|couch|bench), white of the eyes?, whites of the eyes?
    """)
    + (_WORN_EN,),
    humans=_PEOPLE_EN
    + _words(r"""
    persons?, people, humans?, child(?:ren)?, toddler, baby, adults?, teenagers?, dancer, athlete
    """),
    birds=_words(r"""
    birds?, parrots?, chickens?, hens?, roosters?, cockerels?, ducks?, ducklings?, goose, geese, swans?, eagles?, hawks?,
    falcons?, owls?, pigeons?, doves?, sparrows?, crows?, ravens?, penguins?, peacocks?, flamingo(?:s|es)?, turkeys?,
    ostrich(?:es)?, canar(?:y|ies), cockatoos?, macaws?, chicks?, seagulls?, gulls?, toucans?, mallards?, budgies?,
    budgerigars?, parakeets?, cockatiels?, finch(?:es)?, woodpeckers?, kingfishers?, hummingbirds?, storks?, herons?, pelicans?,
    puffins?, vultures?, magpies?, pheasants?, quails?, emus?, owlets?, goslings?, cygnets?
    """),
    quadrupeds=_words(r"""
    cats?, kittens?, dogs?, pupp(?:y|ies), horses?, pon(?:y|ies), fox(?:es)?, wolf, wolves, lions?, tigers?, leopards?,
    cheetahs?, bears?, pandas?, rabbits?, bunn(?:y|ies), deer, cows?, bulls?, sheep, lambs?, goats?, pigs?, mouse, mice,
    rats?, hamsters?, squirrels?, donkeys?, zebras?, camels?, elephants?, giraffes?, raccoons?, quadrupeds?,
    corgis?, poodles?, husk(?:y|ies), retrievers?, labradors?, bulldogs?, sheepdogs?,
    (?:german|australian|belgian|anatolian) shepherds?, dachshunds?, beagles?, chihuahuas?, terriers?, spaniels?, collies?,
    dalmatians?, rottweilers?, doberman(?:n)?s?, pinschers?, greyhounds?, whippets?, mastiffs?, malamutes?, samoyeds?,
    pomeranians?, pugs?, shih tzus?, shibas?, shiba inus?, akitas?, schnauzers?, great danes?, saint bernards?, (?:wolf)?hounds?,
    setters?, mutts?, pekin(?:g)?ese, papillons?, newfoundlands?, weimaraners?, labradoodles?, goldendoodles?,
    tabb(?:y|ies), siamese(?! twins?), maine coons?, sphynx(?:es)?, calicos?, tomcats?, lynx(?:es)?, cougars?, pumas?, panthers?,
    jaguars?, stallions?, mares?, foals?, colts?, mustangs?, ox, oxen, buffalos?, bison, cal(?:f|ves), ewes?, rams?, boars?,
    piglets?, hogs?, moose, elks?, reindeer, antelopes?, gazelles?, llamas?, alpacas?, otters?, beavers?, badgers?, hedgehogs?,
    ferrets?, weasels?, skunks?, gerbils?, chinchillas?, rhino(?:s|ceros|ceroses)?, hippo(?:s|potamus|potamuses)?, hyenas?,
    coyotes?, jackals?, cubs?, pups?, fawns?, stags?
    """),
    pretended=_words(r"""
    teddy, teddies, toys?, mascots?, cartoon(?:s|ish)?, anthropomorphi[cs]\w*, anthro, plush(?:y|ie|ies)?, stuffed, humanoid,
    puppets?, dolls?, animated, robot(?:s|ic)?, balloon
    """),
    subject_ends=_words(r"""
    with, wearing, whose, who, that, which, has, holding, carrying, dressed, in a, in an, on, beside,
    riding(?! \w\w\w+(?:er|or|ist|ast|ent)s?\b)
    """),
    phrase_ends=(
        _PREPOSITIONS_EN,
        rf"(?:like|as|and|\w+ing)(?= {_DETERMINERS_EN}\b)",
        rf"(?<=, ){_DETERMINERS_EN}",  # "A small, brown dog" goes on after the comma, "A robot, a dog" does not
        "".join(f"(?<!{word} )" for word in ("pair", "group", "couple", "trio", "kind", "type", "breed", "herd", "flock", "pack"))
        + "of",
        "is|are|was|were|have|had|sits?|stands?|walks|runs|lies|looks|wears|features|displays|appears|seems|holds|carries|rides",
        # after the noun, and not before it as in "a sitting cat" or "a dog walking teacher"
        r"(?:sitting|standing|lying|perched|seated|walking|running|looking|facing|jumping|crouching|resting|covered|seen|shown)"
        rf"(?=\s*$|,| (?:{_PREPOSITIONS_EN}|with|up|down|upright|\w+ly)\b)",
    ),
    head_tails=_words("mix(?:es)?, cross(?:es|breeds?)?, breeds?, hybrids?, males?, females?"),
)

_PEOPLE_ZH = _words(r"""
    男, 女, 先生, 女士, 小姐, 老人, 姑娘, 小伙
""")

CHINESE = Lexicon(
    looks=_PEOPLE_ZH
    + _words(r"""
    他, 她, 红色, 蓝色, 绿色, 黄色, 黑色, 白色, 粉色, 紫色, 灰色, 棕色, 橙色, 金发, 黑发, 秃头, 卷发, 长发, 短发, 发型, 雀斑,
    纹身, 肤色, 皮肤白, 穿着, 身穿, 身着, 戴着, 佩戴, 服装, 衣着, 赤脚, 光脚, 年轻, 年老, 老年, 中年, 少年, 苗条, 肌肉发达,
    健壮, 肥胖, 胖, 瘦, 高大, 高个, 矮小, 矮个, 英俊, 帅气, 漂亮, 美丽, 金色, 银色, 亚洲人, 亚裔, 白种人, 黑种人, 黑人, 国王, 王后,
    皇帝, 皇后, 王子, 公主, 丈夫, 妻子, 父亲, 母亲, 爸爸, 妈妈, 爷爷, 奶奶, 哥哥, 弟弟, 姐姐, 妹妹
    """),
    things=_words(r"""
    衬衫, 衣服, 上衣, T恤, 裙, 裤, 外套, 夹克, 毛衣, 西装, 制服, 大衣, 袜, 鞋, 靴, 帽, 围巾, 手套, 领带, 耳环, 项链, 手镯,
    手链, 眼镜, 墨镜, 手表, 头发, 胡须, 胡子, 马尾, 袖, 衣领, 腰带
    """),
    contact=_words("触, 摸, 抓, 握, 拿, 扶, 整理, 拉, 扯, 按, 碰, 搭, 放在, 捏, 拨, 撩, 提, 捋, 推, 抚, 拍, 系, 摘"),
    hands=_words("手, 指, 拳"),
    places=_words("到, 至, 向, 往, 朝, 穿过, 靠近, 接近, 高于, 低于, 位于, 越过"),
    worn=(),
    poses=_words(r"""
    站着, 站立, 站在, 坐着, 坐在, 跪, 躺, 趴, 蹲, 行走, 走路, 走着, 奔跑, 跑步, 跳跃, 跳舞, 弯腰, 倚靠, 靠在, 挥手, 举起,
    举着手, 抬起, 摆姿势, 姿势, 姿态, 站姿, 坐姿, 微笑, 笑着, 大笑, 皱眉, 注视, 凝视, 看着, 望着, 看向, 面向, 面朝, 叉腰,
    交叉双臂, 双臂交叉, 双手交叉, 盘腿, 伸出手, 指着, 抱臂, 抱着双臂, 双臂抱胸, 双臂张开, 张开双臂, 展开双臂, 弯着腿, 屈膝,
    双腿弯曲, 双腿分开, 四肢着地, 爬行, 爬着, 飞行, 飞翔, 飞着, 栖息在, 停在树, 展开翅膀, 张开翅膀, 翅膀展开, 翅膀张开, 张着翅膀,
    张着嘴, 张开嘴, 张嘴, 嘴张开, 嘴巴张开, 咧嘴, 吐舌, 伸着舌头, 吐着舌头, 歪着头, 歪头, 低着头, 低头, 抬着头, 抬头, 仰着头, 仰头,
    侧着头, 踮着脚, 踮脚, 踮起脚, 闭着眼, 闭眼, 眨眼
    """),
    stands=(),
    pronouns=(),
    limbs=_words("手, 拳, 胳膊, 鼓掌, 拍掌, 拇指, 食指, 中指, 小指, 指尖, 指节, 指关节, 双臂, 左臂, 右臂, 前臂, 上臂, 小臂"),
    harmless=_words(r"""
    其他, 吉他, 脸红, 明白, 空白, 扶手, 把手, 对手, 助手, 歌手, 选手, 水手, 随手, 顺手, 着手, 跑步鞋, 跳舞鞋, 手机, 手提包,
    手袋, 拳击, 子女, 仙女座, 手表, 手套, 手镯, 手链, 手环, 手杖, 手电, 牛仔, 马尾, 马甲, 鼠标, 飞行员, 飞行夹克, 飞行帽, 飞行服,
    飞行头盔, 飞行眼镜, 飞行靴, 爬行动物, 抬头纹, 公主抱, 一张嘴
    """),
    humans=_PEOPLE_ZH
    + _words(r"""
    人物, 一个人, 人类, 儿童, 小孩, 孩子, 婴儿, 成年人, 青年, 少年, 一位, 两位, 三位, 一名, 两名, 三名
    """),
    birds=_words("鸟, 鹦鹉, 鸡, 鸭, 鹅, 天鹅, 鹰, 隼, 猫头鹰, 鸽, 麻雀, 乌鸦, 企鹅, 孔雀, 火烈鸟, 鸵鸟, 海鸥, 燕子"),
    quadrupeds=_words(r"""
    猫, 狗, 犬, 马, 狐狸, 狼, 狮, 虎, 豹, 熊, 兔, 鹿, 牛, 羊, 猪, 鼠, 驴, 骆驼, 大象, 长颈鹿, 浣熊, 柯基, 金毛, 拉布拉多, 哈士奇,
    边牧, 法斗, 英短, 美短, 水獭, 刺猬
    """),
    pretended=_words("泰迪熊, 玩具, 玩偶, 毛绒, 公仔, 吉祥物, 卡通, 动画, 拟人, 机器"),
    subject_ends=_words(r"""
    身穿, 穿着, 戴着, 长着, 有着, 拿着, 带有, 。, 、
    """)
    + (",", "\uff0c"),
    phrase_ends=_words("牵着, 骑着, 遛着, 着一, 和一, 与一"),
    head_tails=_words("子, 儿, 咪, 崽, 犊, 羔, 驹, 仔, 宝, 雏, 类, 动物, 混血"),
)

LEXICONS = {"en": ENGLISH, "zh": CHINESE}
