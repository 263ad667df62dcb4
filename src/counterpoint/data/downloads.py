"""The register of data sets that can be fetched, or of how to get those that can't be."""

from dataclasses import dataclass

_BY = "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)"
_BY_NC = "CC BY-NC 4.0, not for commercial use (https://creativecommons.org/licenses/by-nc/4.0/)"
_BY_NC_SA = "CC BY-NC-SA 4.0, not for commercial use (creativecommons.org/licenses/by-nc-sa/4.0/)"


@dataclass(frozen=True)
class File:
    """One file of a data set.

    ``name`` is what it is called below another base address, and its ending says whether it is
    unpacked; ``to`` is the folder for its content in that of the data set. ``checksum`` is
    "md5:..." or "sha256:...", or empty where none is certain. With ``gunzip`` a packed ``x.gz``
    becomes ``x``.
    """

    name: str
    url: str
    to: str = ""
    checksum: str = ""
    gunzip: bool = False


@dataclass(frozen=True)
class Download:
    """A data set that is published: its terms, and its files or how to get them by hand.

    ``folder`` is where the files go below the root, ``size`` how much is downloaded, in words.
    Without ``files``, ``by_hand`` says what to do.
    """

    name: str
    summary: str
    licence: str
    cite: str
    page: str
    size: str
    folder: str
    files: tuple[File, ...] = ()
    by_hand: str = ""


_ALL = (
    Download(
        name="camelyon17",
        summary="lymph node patches of five hospitals, tumour or none (WILDS, version 1.0)",
        licence="CC0 1.0, public domain (https://creativecommons.org/publicdomain/zero/1.0/)",
        cite="Bandi et al., IEEE TMI 2018, doi:10.1109/TMI.2018.2867350; Koh et al., ICML 2021",
        page="https://wilds.stanford.edu/datasets/#camelyon17",
        size="about 10 GB, and as much again for the 455 954 patches",
        folder="camelyon17_v1.0",
        files=(
            File(
                "camelyon17_v1.0.tar.gz",
                "https://worksheets.codalab.org/rest/bundles/"
                "0xe45e15f39fb54e9d9e919556af67aabe/contents/blob/",
            ),
        ),
    ),
    Download(
        name="prostate",
        summary="T2-weighted MRI of the prostate from six sites, with masks",
        licence="for research; its sources (NCI-ISBI 2013, I2CVB, PROMISE12) have their own terms",
        cite="Liu, Dou, Heng, MICCAI 2020; and the papers of the sources that the page lists",
        page="https://liuquande.github.io/SAML/",
        size="116 volumes",
        folder="prostate",
        by_hand="its page gives it out by links to shared folders, for a browser. Unpack it so "
        "that DIR has the folders BIDMC, HK, I2CVB, ISBI, ISBI_1.5 and UCL with CaseNN.nii.gz and "
        "CaseNN_segmentation.nii.gz, and give DIR as --root. RUNMC and BMC instead of "
        "the two ISBI are fine too",
    ),
    Download(
        name="hrf",
        summary="45 retina photographs of 3504 by 2336 pixels with vessels and fields of view",
        licence=_BY,
        cite="Budai et al., Int. J. Biomedical Imaging 2013, doi:10.1155/2013/154860",
        page="https://www5.cs.fau.de/research/data/fundus-images/",
        size="about 73 MB",
        folder="HRF",
        files=(
            File(
                "all.zip",
                "https://www5.cs.fau.de/fileadmin/research/datasets/fundus-images/all.zip",
            ),
        ),
    ),
    Download(
        name="chase-db1",
        summary="28 retina photographs of 14 children, vessels by two observers",
        licence=_BY,
        cite="Fraz et al., IEEE Trans. Biomed. Eng. 2012, doi:10.1109/TBME.2012.2205687",
        page="https://researchdata.kingston.ac.uk/96/",
        size="about 3 MB",
        folder="CHASE_DB1",
        files=(File("CHASEDB1.zip", "https://researchdata.kingston.ac.uk/96/1/CHASEDB1.zip"),),
    ),
    Download(
        name="stare",
        summary="20 retina photographs, vessels by Adam Hoover (labels-ah)",
        licence="none is stated; the page offers it to researchers, who cite it",
        cite="Hoover, Kouznetsova, Goldbaum, IEEE TMI 2000, doi:10.1109/42.845178",
        page="https://cecas.clemson.edu/~ahoover/stare/probing/index.html",
        size="some MB",
        folder="STARE",
        files=(
            File(
                "stare-images.tar",
                "https://cecas.clemson.edu/~ahoover/stare/probing/stare-images.tar",
                to="stare-images",
                checksum="sha256:5f7b509b6067cad4f1be84933145d783de9ec087b3eaaf4db0103dd0144dd433",
                gunzip=True,
            ),
            File(
                "labels-ah.tar",
                "https://cecas.clemson.edu/~ahoover/stare/probing/labels-ah.tar",
                to="labels-ah",
                checksum="sha256:ebf2f1e17ca955f24579d9edd990e2dae79a5c82def69f0985d8e24f826ddd2f",
                gunzip=True,
            ),
        ),
    ),
    Download(
        name="drive",
        summary="40 retina photographs, vessels and fields of view",
        licence="for research and education, as its page says after registration",
        cite="Staal et al., IEEE TMI 2004, doi:10.1109/TMI.2004.825627",
        page="https://drive.grand-challenge.org/",
        size="some MB",
        folder="DRIVE",
        by_hand="it is given out after registration. Log in on its page, download it and unpack it "
        "so that DIR/DRIVE has training/images, training/1st_manual, training/mask and test",
    ),
    Download(
        name="tnbc",
        summary="50 patches of triple-negative breast cancer of 11 patients, nuclei (version 1.1)",
        licence=_BY,
        cite="Naylor et al., IEEE TMI 2018, doi:10.1109/TMI.2018.2865709",
        page="https://zenodo.org/records/2579118",
        size="25 MB",
        folder="TNBC",
        files=(
            File(
                "TNBC_NucleiSegmentation.zip",
                "https://zenodo.org/records/2579118/files/TNBC_NucleiSegmentation.zip?download=1",
                checksum="md5:1605712a752b201b57eacc8f866adb4f",
            ),
        ),
    ),
    Download(
        name="monuseg",
        summary="51 patches of seven organs and more with outlines of nuclei",
        licence=_BY_NC_SA,
        cite="Kumar et al., IEEE TMI 2017, doi:10.1109/TMI.2017.2677499, and TMI 2020",
        page="https://monuseg.grand-challenge.org/Data/",
        size="some hundred MB",
        folder="MoNuSeg",
        by_hand="its page gives it out by links to Google Drive, for a browser. Unpack the "
        "training and test archives in DIR, to folders whose names begin with MoNuSeg",
    ),
    Download(
        name="monusac",
        summary="patches of four organs from 37 hospitals, nuclei of four kinds of cells",
        licence=_BY_NC_SA,
        cite="Verma et al., IEEE TMI 2021, doi:10.1109/TMI.2021.3085712",
        page="https://monusac-2020.grand-challenge.org/Data/",
        size="some hundred MB or more",
        folder="MoNuSAC",
        by_hand="its page gives it out by links to Google Drive, for a browser. Unpack the "
        "training and test archives in DIR, to folders whose names begin with MoNuSAC",
    ),
    Download(
        name="ham10000",
        summary="10 015 dermoscopic images of pigmented lesions, four sources, with lesion masks",
        licence=_BY_NC,
        cite="Tschandl, Rosendahl, Kittler, Sci. Data 2018, doi:10.1038/sdata.2018.161; masks: "
        "Tschandl et al., Nat. Med. 2020, doi:10.1038/s41591-020-0942-0",
        page="https://doi.org/10.7910/DVN/DBW86T",
        size="about 2.8 GB",
        folder="HAM10000",
        files=(
            File(
                "HAM10000_metadata.csv",
                "https://dataverse.harvard.edu/api/access/datafile/4338392?format=original",
            ),
            File(
                "HAM10000_segmentations_lesion_tschandl.zip",
                "https://dataverse.harvard.edu/api/access/datafile/3838943",
                to="masks",
            ),
            File(
                "HAM10000_images_part_1.zip",
                "https://dataverse.harvard.edu/api/access/datafile/3172585",
                to="images",
            ),
            File(
                "HAM10000_images_part_2.zip",
                "https://dataverse.harvard.edu/api/access/datafile/3172584",
                to="images",
            ),
        ),
    ),
    Download(
        name="dermoscopy",
        summary="the benchmark of PRR-FL: parts of HAM10000 and of ISIC 2017",
        licence="that of its sources: HAM10000 CC BY-NC 4.0, ISIC 2017 CC0",
        cite="Chen, Zhu, Yang, Yuan, MICCAI 2021; and HAM10000 and ISIC 2017",
        page="https://github.com/CityU-AIM-Group/PRR-FL",
        size="some GB, for both sources",
        folder="dermoscopy",
        by_hand="its tables come with the authors' code, its images with HAM10000 (`counterpoint "
        "fetch ham10000`) and ISIC 2017 (https://challenge.isic-archive.com/data/#2017). Put the "
        "images as DIR/clientA/img_resize128/ID.png and the authors' csv_folder into DIR",
    ),
    Download(
        name="dermoscopy5",
        summary="skin lesions of five sources: all of HAM10000, and ISIC 2017",
        licence="that of its sources: HAM10000 CC BY-NC 4.0, ISIC 2017 CC0",
        cite="the papers of HAM10000 and ISIC 2017",
        page="https://doi.org/10.7910/DVN/DBW86T and https://challenge.isic-archive.com/data/#2017",
        size="some GB, for both sources",
        folder="dermoscopy5",
        by_hand="fetch ham10000, get ISIC 2017 from its page. Make a folder a source, called "
        "as in the column dataset of HAM10000's metadata, with its images and a labels.csv",
    ),
    Download(
        name="fed-isic2019",
        summary="skin lesions of six centres, eight diagnoses: Fed-ISIC2019 of FLamby",
        licence="that of its sources: HAM10000 and ISIC 2019, both CC BY-NC 4.0",
        cite="Ogier du Terrail et al., NeurIPS 2022; and HAM10000 and ISIC 2019",
        page="https://github.com/owkin/FLamby/tree/main/flamby/datasets/fed_isic2019",
        size="some GB",
        folder="fed-isic2019",
        by_hand="FLamby's own scripts fetch its images and make them smaller. Copy its file "
        "train_test_split beside the folder with the images",
    ),
    Download(
        name="nuclei",
        summary="outlined nuclei: MoNuSAC, MoNuSeg and TNBC",
        licence="that of each: see `counterpoint fetch monusac`, monuseg and tnbc",
        cite="the paper of each",
        page="of each its own",
        size="that of all together",
        folder="nuclei",
        by_hand="it is made of three. Fetch tnbc to DIR, get monusac and monuseg by hand to the "
        "same DIR, and give DIR as --root",
    ),
    Download(
        name="retina",
        summary="retinal vessels: HRF, CHASE_DB1, STARE and DRIVE",
        licence="that of each: see `counterpoint fetch hrf`, chase-db1, stare and drive",
        cite="the paper of each",
        page="of each its own",
        size="that of all together",
        folder="retina",
        by_hand="it is made of two or more. Fetch hrf, chase-db1 and stare to one DIR, get drive "
        "by hand to the same DIR if you want it, and give DIR as --root",
    ),
)

DOWNLOADS = {one.name: one for one in _ALL}
"""All data sets of the register, by name."""
